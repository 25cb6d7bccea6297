//! The rows that a caller asks for: named key columns, a value of each for every row.

use stoa_protocol::KeyValue;
use stoa_protocol::limits::READ_ROWS_MAX;

use crate::error::RowsError;

/// Entity keys, row by row under named columns. The names are those of the view's key columns, in any order.
///
/// ```
/// # use stoa_client::Rows;
/// let mut rows = Rows::new(&["household_id", "product_id"]);
/// rows.push(&[7.into(), 1001.into()])?;
/// rows.push(&[7.into(), 1002.into()])?;
/// assert_eq!(rows.len(), 2);
/// # Ok::<(), stoa_client::RowsError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Rows {
    columns: Vec<String>,
    /// Row after row.
    values: Vec<KeyValue>,
    rows: usize,
}

impl Rows {
    /// No rows yet, under these columns.
    pub fn new(columns: &[&str]) -> Self {
        Self { columns: columns.iter().map(|name| (*name).to_owned()).collect(), values: Vec::new(), rows: 0 }
    }

    /// Adds a row: one value for each column, in the order of [`Rows::new`]. Refused beyond [`READ_ROWS_MAX`] rows.
    pub fn push(&mut self, values: &[KeyValue]) -> Result<(), RowsError> {
        if values.len() != self.columns.len() {
            return Err(RowsError::Count { row: self.rows, given: values.len(), columns: self.columns.clone() });
        }
        if self.rows == READ_ROWS_MAX {
            return Err(RowsError::TooMany { rows: self.rows + 1 });
        }
        self.values.extend_from_slice(values);
        self.rows += 1;
        Ok(())
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The names of the columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The value of a row under a column; panics beyond the ends.
    pub fn value(&self, row: usize, column: usize) -> &KeyValue {
        assert!(column < self.columns.len(), "column {column} of {}", self.columns.len());
        &self.values[row * self.columns.len() + column]
    }
}
