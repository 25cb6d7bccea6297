//! A feature file, opened against a group.

use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use stoa_protocol::FeatureGroup;

use super::columns::Columns;
use super::csv_file::CsvRows;
use super::error::LoadError;
use super::identity::digest_of;
use super::options::LoadOptions;
use super::parquet_file::{ParquetHeader, ParquetRows};
use super::row::{Chunk, RowCheck};

/// Rows of one chunk at most: what a load holds of its file at a time.
pub const CHUNK_ROWS_MAX: usize = 65_536;

/// A feature file whose columns fit a group.
#[derive(Debug)]
pub struct SourceFile {
    path: PathBuf,
    kind: Kind,
    stamp: Stamp,
    columns: Columns,
    check: RowCheck,
    load_time_us: i64,
    rows_total: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Parquet,
    Csv,
}

/// What a file looks like from outside. A file is opened more than once in a load; two looks tell if it was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
}

impl SourceFile {
    /// Opens a `.parquet` or `.csv` file and settles what its columns are to `group`: every key column must be there,
    /// the event time column if the group has one, and at least one feature. Features that are missing stay as they
    /// are in the store.
    pub fn open(path: impl AsRef<Path>, group: &FeatureGroup, options: LoadOptions) -> Result<Self, LoadError> {
        let path = path.as_ref().to_owned();
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let kind = match extension.as_str() {
            "parquet" => Kind::Parquet,
            "csv" => Kind::Csv,
            _ => return Err(LoadError::Extension { path, extension }),
        };
        let (file, stamp) = open(&path)?;
        if stamp.bytes == 0 {
            return Err(LoadError::Damaged { path, kind: kind.name(), why: "it is empty".into() });
        }
        let (columns, rows_total) = match kind {
            Kind::Csv => {
                let (_, names) = CsvRows::open(&path, file)?;
                (Columns::resolve(&path, &names, group, options.unknown_columns)?, None)
            }
            Kind::Parquet => {
                let header = ParquetHeader::read(&path, file)?;
                let columns = Columns::resolve(&path, &header.names, group, options.unknown_columns)?;
                header.check_types(&path, &columns)?;
                (columns, Some(header.rows))
            }
        };
        let check = RowCheck::new(group, &columns.features, options.load_time_us);
        Ok(Self { path, kind, stamp, columns, check, load_time_us: options.load_time_us, rows_total })
    }

    /// The places of the features that the file has, ascending: the order of the values of its rows.
    pub fn features(&self) -> Vec<u16> {
        self.columns.features.iter().map(|column| column.feature).collect()
    }

    /// The file columns that are not read.
    pub fn ignored_columns(&self) -> &[String] {
        &self.columns.ignored
    }

    /// The number of its rows, if the file says it (Parquet).
    pub fn rows_total(&self) -> Option<u64> {
        self.rows_total
    }

    /// Bytes of the file.
    pub fn bytes_total(&self) -> u64 {
        self.stamp.bytes
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// XXH3-128 over the file's bytes; reads the whole file.
    pub fn digest(&self) -> Result<u128, LoadError> {
        let mut file = self.reopen()?;
        let digest = digest_of(&mut file).map_err(|reason| LoadError::Read { path: self.path.clone(), reason })?;
        self.reopen()?;
        Ok(digest)
    }

    /// Reads the file from its beginning in chunks of up to `rows_per_chunk` rows (1 to [`CHUNK_ROWS_MAX`]). After an
    /// error nothing more comes.
    pub fn chunks(&self, rows_per_chunk: usize) -> Result<Chunks<'_>, LoadError> {
        let rows_per_chunk = rows_per_chunk.clamp(1, CHUNK_ROWS_MAX);
        let file = self.reopen()?;
        let rows = match (self.kind, self.rows_total) {
            (Kind::Parquet, Some(total)) => {
                Rows::Parquet(Box::new(ParquetRows::open(&self.path, file, &self.columns, total, rows_per_chunk)?))
            }
            _ => Rows::Csv(Box::new(CsvRows::open(&self.path, file)?.0)),
        };
        Ok(Chunks { source: self, rows, rows_per_chunk })
    }

    fn reopen(&self) -> Result<File, LoadError> {
        let (file, stamp) = open(&self.path)?;
        if stamp != self.stamp {
            return Err(LoadError::Changed { path: self.path.clone() });
        }
        Ok(file)
    }
}

/// The chunks of a file; made by [`SourceFile::chunks`].
pub struct Chunks<'a> {
    source: &'a SourceFile,
    rows: Rows,
    rows_per_chunk: usize,
}

enum Rows {
    Parquet(Box<ParquetRows>),
    Csv(Box<CsvRows>),
    Done,
}

impl Iterator for Chunks<'_> {
    type Item = Result<Chunk, LoadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let SourceFile { path, columns, check, load_time_us, .. } = self.source;
        let next = match &mut self.rows {
            Rows::Parquet(rows) => rows.next_chunk(path, columns, check, *load_time_us),
            Rows::Csv(rows) => rows.next_chunk(path, columns, check, *load_time_us, self.rows_per_chunk),
            Rows::Done => Ok(None),
        };
        if !matches!(next, Ok(Some(_))) {
            self.rows = Rows::Done;
        }
        next.transpose()
    }
}

impl std::iter::FusedIterator for Chunks<'_> {}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Parquet => "Parquet",
            Self::Csv => "CSV",
        }
    }
}

fn open(path: &Path) -> Result<(File, Stamp), LoadError> {
    let fail = |reason| LoadError::Read { path: path.to_owned(), reason };
    let file = File::open(path).map_err(fail)?;
    let metadata: Metadata = file.metadata().map_err(fail)?;
    if metadata.is_dir() {
        return Err(fail(std::io::ErrorKind::IsADirectory.into()));
    }
    Ok((file, Stamp { bytes: metadata.len(), modified: metadata.modified().ok() }))
}

#[cfg(test)]
mod tests;
