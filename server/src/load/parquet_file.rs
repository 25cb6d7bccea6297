//! Rows of a Parquet file.
//!
//! The reader of the parquet crate returns errors for most damage, but panics on some of it: on a column chunk with a
//! negative start, on a page that needs a dictionary which is not there (4 of 20,000 files with random bits flipped). A
//! file of the user must not end the process, so every call into the reader is guarded: a panic becomes the error that
//! the file is damaged. Nothing of ours is left half-changed by it, since a reader that failed is not used again.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::columns::Columns;
use super::error::LoadError;
use super::parquet_types::{
    event_time_fits, event_time_target, feature_allowed, feature_fits, feature_target, key_allowed, key_fits,
    key_target,
};
use super::parquet_values::TargetColumn;
use super::row::{Chunk, LoadRow, RowCheck};

/// What the footer of a Parquet file says.
pub(super) struct ParquetHeader {
    pub names: Vec<String>,
    pub schema: SchemaRef,
    pub rows: u64,
}

impl ParquetHeader {
    pub fn read(path: &Path, file: File) -> Result<Self, LoadError> {
        guarded(path, || {
            let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| error.to_string())?;
            let metadata = builder.metadata();
            let said = metadata.file_metadata().num_rows();
            let parts: i64 = metadata.row_groups().iter().fold(0, |sum, group| sum.saturating_add(group.num_rows()));
            let rows = u64::try_from(said).ok().filter(|_| said == parts);
            let rows = rows.ok_or_else(|| format!("it says that it has {said} rows, and its parts have {parts}"))?;
            let schema = Arc::clone(builder.schema());
            let names = schema.fields().iter().map(|field| field.name().clone()).collect();
            Ok(Self { names, schema, rows })
        })
    }

    /// Checks that the type of every column that is read fits what it is read as.
    pub fn check_types(&self, path: &Path, columns: &Columns) -> Result<(), LoadError> {
        let check = |column: usize, fits: &dyn Fn(&DataType) -> bool, wanted: String, allowed: String| {
            let field = self.schema.field(column);
            if fits(field.data_type()) {
                return Ok(());
            }
            Err(LoadError::ColumnType {
                path: path.to_owned(),
                column: field.name().clone(),
                found: field.data_type().to_string(),
                wanted,
                allowed,
            })
        };
        for key in &columns.keys {
            check(
                key.column,
                &|found| key_fits(found, key.ty),
                format!("a key of type {}", key.ty),
                key_allowed(key.ty),
            )?;
        }
        if let Some((_, column)) = &columns.event_time {
            let allowed = "a timestamp of any unit, Date32 or Int64 (microseconds)".to_owned();
            check(*column, &event_time_fits, "an event time".to_owned(), allowed)?;
        }
        for feature in &columns.features {
            let fits = |found: &DataType| feature_fits(found, feature.ty);
            check(feature.column, &fits, feature.ty.to_string(), feature_allowed(feature.ty))?;
        }
        Ok(())
    }
}

/// A Parquet file that is being read.
pub(super) struct ParquetRows {
    reader: ParquetRecordBatchReader,
    /// Where each column of the file stands in the batches that are read.
    places: Vec<Option<usize>>,
    rows: u64,
    rows_total: u64,
}

impl ParquetRows {
    pub fn open(
        path: &Path,
        file: File,
        columns: &Columns,
        rows_total: u64,
        rows_per_chunk: usize,
    ) -> Result<Self, LoadError> {
        guarded(path, || {
            let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| error.to_string())?;
            let mut wanted: Vec<usize> = columns.keys.iter().map(|key| key.column).collect();
            wanted.extend(columns.event_time.iter().map(|(_, column)| *column));
            wanted.extend(columns.features.iter().map(|feature| feature.column));
            wanted.sort_unstable();
            wanted.dedup();
            let mut places = vec![None; builder.schema().fields().len()];
            for (place, column) in wanted.iter().enumerate() {
                *places.get_mut(*column).ok_or("its columns have changed")? = Some(place);
            }
            let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
            let reader = builder.with_projection(mask).with_batch_size(rows_per_chunk).build();
            Ok(Self { reader: reader.map_err(|error| error.to_string())?, places, rows: 0, rows_total })
        })
    }

    /// The next rows; `None` at the end.
    pub fn next_chunk(
        &mut self,
        path: &Path,
        columns: &Columns,
        check: &RowCheck,
        load_time_us: i64,
    ) -> Result<Option<Chunk>, LoadError> {
        let (rows, rows_total) = (self.rows, self.rows_total);
        let chunk = guarded(path, || match self.reader.next() {
            Some(Ok(batch)) => self.chunk(&batch, columns, check, load_time_us).map(Some),
            Some(Err(error)) => Err(format!("after row {rows}: {error}")),
            None if rows != rows_total => Err(format!("it says that it has {rows_total} rows, and {rows} were found")),
            None => Ok(None),
        })?;
        self.rows += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        Ok(chunk)
    }

    fn chunk(
        &self,
        batch: &RecordBatch,
        columns: &Columns,
        check: &RowCheck,
        load_time_us: i64,
    ) -> Result<Chunk, String> {
        let target = |column: usize, target: &dyn Fn(&DataType) -> DataType| {
            let place = self.places[column].expect("every column that is read has a place");
            let source = batch.column(place);
            TargetColumn::new(source, &target(source.data_type()))
                .map_err(|error| format!("column {} of the file: {error}", column + 1))
        };
        let mut keys = Vec::with_capacity(columns.keys.len());
        for key in &columns.keys {
            keys.push(target(key.column, &|found| key_target(found, key.ty))?);
        }
        let event_time = match &columns.event_time {
            Some((_, column)) => Some(target(*column, &event_time_target)?),
            None => None,
        };
        let mut features = Vec::with_capacity(columns.features.len());
        for feature in &columns.features {
            features.push(target(feature.column, &|found| feature_target(found, feature.ty))?);
        }
        let read = |row: usize, line: u64| -> Result<LoadRow, String> {
            let mut key = Vec::with_capacity(keys.len());
            for (column, target) in columns.keys.iter().zip(&keys) {
                let value = target.key(column.ty, row);
                key.push(value.map_err(|why| format!("key column {}: {why}", column.name))?);
            }
            let event_time = match (&columns.event_time, &event_time) {
                (Some((name, _)), Some(target)) => {
                    target.event_time(row).map_err(|why| format!("column {name}: {why}"))?
                }
                _ => load_time_us,
            };
            let mut values = Vec::with_capacity(features.len());
            for (column, target) in columns.features.iter().zip(&features) {
                let value = target.value(column.ty, row);
                values.push(value.map_err(|why| format!("column {}: {why}", column.name))?);
            }
            check.row(line, &key, event_time, values)
        };
        let mut chunk = Chunk::new(self.rows);
        for row in 0..batch.num_rows() {
            let line = self.rows + row as u64 + 1;
            chunk.push(line, read(row, line));
        }
        Ok(chunk)
    }
}

/// Calls the parquet reader; its errors and its panics mean that the file is damaged.
fn guarded<T>(path: &Path, call: impl FnOnce() -> Result<T, String>) -> Result<T, LoadError> {
    let why = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(why)) => why,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            format!("the reader gave up: {}", text.unwrap_or("it did not say why"))
        }
    };
    Err(LoadError::Damaged { path: path.to_owned(), kind: "Parquet", why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_reader_becomes_an_error_that_names_the_file() {
        let found = guarded(Path::new("f.parquet"), || -> Result<(), String> { panic!("no such page: {}", 7) });
        let message = found.unwrap_err().to_string();
        assert_eq!(message, "f.parquet: not a whole Parquet file: the reader gave up: no such page: 7");
    }
}
