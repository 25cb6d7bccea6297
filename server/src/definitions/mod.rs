//! Definitions as people write them: files of YAML documents, each one a project, an entity, a feature group, a grant or
//! a feature view. Parsing knows no cluster: that a name exists, or that a definition does not contradict an older one,
//! is the root group's to say.
//!
//! All errors of a file are found at once, each with its document, line and field, what was wrong and what would be
//! right. Start reading at [`parse_definitions`]; `node` is a YAML document with line numbers, `fields` takes a
//! mapping apart and notes what is wrong, `kinds` knows the fields of each kind.

mod error;
mod fields;
mod kinds;
mod node;
mod parse;

pub use error::{DefinitionError, DefinitionErrors};
pub use parse::{DEFINITIONS_BYTES_MAX, DOCUMENTS_MAX, load_definitions, parse_definitions};
