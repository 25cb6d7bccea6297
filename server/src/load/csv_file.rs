//! Rows of a CSV file: comma-separated, quoted as RFC 4180 says, the first line names the columns.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use csv::{ByteRecord, Reader, ReaderBuilder, Terminator};

use super::columns::Columns;
use super::error::LoadError;
use super::row::{Chunk, LoadRow, RowCheck};
use super::text::{parse_event_time, parse_key, parse_value};

/// Bytes of one record: several times what a row may hold. A quote that is never closed would else draw the whole file
/// into one field.
const RECORD_BYTES_MAX: usize = 16 << 20;

/// A CSV file that is being read.
pub(super) struct CsvRows {
    reader: Reader<BudgetReader<File>>,
    record: ByteRecord,
    fields: usize,
    rows: u64,
}

impl CsvRows {
    /// Reads the header of a file; its names.
    pub fn open(path: &Path, file: File) -> Result<(Self, Vec<String>), LoadError> {
        let inner = BudgetReader { inner: file, left: RECORD_BYTES_MAX, ended: false };
        // Flexible: a row with too few or too many fields is a bad row, not a bad file. Lines end with \n alone, and a \r
        // before it is taken off here: the crate's own handling of \r\n loses count of lines.
        let mut builder = ReaderBuilder::new();
        builder.has_headers(true).flexible(true).terminator(Terminator::Any(b'\n'));
        let mut reader = builder.from_reader(inner);
        let header = reader.byte_headers().map_err(|error| read_error(path, error))?;
        let mut names = Vec::with_capacity(header.len());
        for (at, name) in header.iter().enumerate() {
            let name = if at + 1 == header.len() { without_return(name) } else { name };
            match std::str::from_utf8(name) {
                Ok(name) => names.push(name.to_owned()),
                Err(_) => return Err(damaged(path, format!("the name of column {} is not UTF-8", at + 1))),
            }
        }
        if names.iter().all(String::is_empty) {
            return Err(damaged(path, "its first line should name the columns".into()));
        }
        let fields = names.len();
        Ok((Self { reader, record: ByteRecord::new(), fields, rows: 0 }, names))
    }

    /// The next rows; `None` at the end.
    pub fn next_chunk(
        &mut self,
        path: &Path,
        columns: &Columns,
        check: &RowCheck,
        load_time_us: i64,
        rows_per_chunk: usize,
    ) -> Result<Option<Chunk>, LoadError> {
        let mut chunk = Chunk::new(self.rows);
        while chunk.len() < rows_per_chunk {
            self.reader.get_mut().left = RECORD_BYTES_MAX;
            if !self.reader.read_byte_record(&mut self.record).map_err(|error| read_error(path, error))? {
                break;
            }
            if self.record.len() == 1 && self.record[0] == *b"\r" {
                continue;
            }
            let line = self.line();
            chunk.push(line, self.row(line, columns, check, load_time_us));
        }
        self.rows += chunk.len() as u64;
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    fn row(&self, line: u64, columns: &Columns, check: &RowCheck, load_time_us: i64) -> Result<LoadRow, String> {
        if self.record.len() != self.fields {
            return Err(format!("{} fields where the header has {}", self.record.len(), self.fields));
        }
        let mut key = Vec::with_capacity(columns.keys.len());
        for column in &columns.keys {
            let parsed = self.field(column.column).and_then(|text| parse_key(column.ty, text));
            key.push(parsed.map_err(|why| format!("key column {}: {why}", column.name))?);
        }
        let event_time = match &columns.event_time {
            None => load_time_us,
            Some((name, column)) => {
                self.field(*column).and_then(parse_event_time).map_err(|why| format!("column {name}: {why}"))?
            }
        };
        let mut values = Vec::with_capacity(columns.features.len());
        for column in &columns.features {
            let parsed = self.field(column.column).and_then(|text| parse_value(column.ty, text));
            values.push(parsed.map_err(|why| format!("column {}: {why}", column.name))?);
        }
        check.row(line, &key, event_time, values)
    }

    /// The line that the record begins at. The crate's own answer is where the one before ended, blank lines apart; so
    /// it is counted back from the record's end, which lies after its line feed unless the file ended first.
    fn line(&self) -> u64 {
        let inside: usize = self.record.iter().map(|field| field.iter().filter(|&&byte| byte == b'\n').count()).sum();
        let after = inside as u64 + u64::from(!self.reader.get_ref().ended);
        self.reader.position().line().saturating_sub(after)
    }

    fn field(&self, at: usize) -> Result<&str, String> {
        let bytes = self.record.get(at).unwrap_or_default();
        let bytes = if at + 1 == self.fields { without_return(bytes) } else { bytes };
        std::str::from_utf8(bytes).map_err(|error| format!("not UTF-8 at byte {}", error.valid_up_to()))
    }
}

/// The last field of a line without the carriage return of a line that ends in both.
fn without_return(field: &[u8]) -> &[u8] {
    field.strip_suffix(b"\r").unwrap_or(field)
}

/// Reads until its budget is spent; the budget is renewed for each record.
struct BudgetReader<R> {
    inner: R,
    left: usize,
    /// Whether the file's end was met.
    ended: bool,
}

impl<R: Read> Read for BudgetReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let why = format!("a row is longer than {RECORD_BYTES_MAX} bytes; is a quote not closed?");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let most = buffer.len().min(self.left);
        let bytes = self.inner.read(&mut buffer[..most])?;
        self.left -= bytes;
        self.ended |= bytes == 0 && most > 0;
        Ok(bytes)
    }
}

fn read_error(path: &Path, error: csv::Error) -> LoadError {
    let place = error.position().map(|position| format!(" after line {}", position.line())).unwrap_or_default();
    match error.into_kind() {
        csv::ErrorKind::Io(source) if source.kind() != io::ErrorKind::InvalidData => {
            LoadError::Read { path: path.to_owned(), reason: source }
        }
        csv::ErrorKind::Io(why) => damaged(path, why.to_string()),
        other => damaged(path, format!("{other:?}{place}")),
    }
}

fn damaged(path: &Path, why: String) -> LoadError {
    LoadError::Damaged { path: path.to_owned(), kind: "CSV", why }
}
