//! Takes a mapping apart field by field and notes everything that is wrong on the way: a reader of fields never stops at
//! the first error, it hands out `None` and goes on.

use stoa_protocol::codec::{DecodeError, check_name};
use stoa_protocol::limits::DESCRIPTION_BYTES_MAX;

use super::error::{DefinitionError, ERRORS_MAX};
use super::node::{Content, Node};

/// Where errors of one document go.
#[derive(Debug)]
pub(super) struct Notes<'a> {
    pub file: &'a str,
    pub document: usize,
    /// Lines of the file before the document's text.
    pub lines_before: usize,
    pub errors: &'a mut Vec<DefinitionError>,
}

impl Notes<'_> {
    /// Notes an error at a line of the document's text.
    pub fn add(&mut self, line: usize, field: impl Into<String>, problem: impl Into<String>, right: impl Into<String>) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(DefinitionError {
                file: self.file.to_owned(),
                document: self.document,
                line: self.lines_before + line,
                field: field.into(),
                problem: problem.into(),
                right: right.into(),
            });
        }
    }

    /// Notes what a check of the protocol found.
    pub fn add_decode(&mut self, line: usize, field: impl Into<String>, error: &DecodeError) {
        match error {
            DecodeError::Invalid { field: what, value, allowed } => {
                self.add(line, field, format!("{what} is {value}"), format!("it may be {allowed}"));
            }
            other => self.add(line, field, other.to_string(), ""),
        }
    }
}

/// The fields of one mapping.
pub(super) struct Fields<'n, 'a, 'e> {
    pub notes: &'n mut Notes<'e>,
    /// The line of the mapping.
    pub line: usize,
    /// Its place in the document, such as `features[2]`; empty at the top.
    path: String,
    fields: &'a [(String, usize, Node)],
}

impl<'n, 'a, 'e> Fields<'n, 'a, 'e> {
    /// The fields of `node`, each of which must be one of `known`; `None`, and a note, if it is not a mapping.
    pub fn of(notes: &'n mut Notes<'e>, node: &'a Node, path: String, known: &[&str]) -> Option<Self> {
        let Content::Mapping(fields) = &node.content else {
            notes.add(node.line, path, format!("{} was given", node.describe()), list_of("a mapping with", known));
            return None;
        };
        let this = Self { notes, line: node.line, path, fields };
        for (name, line, _) in fields {
            if !known.contains(&name.as_str()) {
                let field = this.path_of(name);
                this.notes.add(*line, field, "there is no such field", list_of("the fields are", known));
            }
        }
        Some(this)
    }

    /// The field's place in the document.
    pub fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Notes an error of a field, at its line if it is there.
    pub fn wrong(&mut self, name: &str, problem: impl Into<String>, right: impl Into<String>) {
        let line = self.find(name).map_or(self.line, |node| node.line);
        let field = self.path_of(name);
        self.notes.add(line, field, problem, right);
    }

    /// The text of a field that must be there.
    pub fn text(&mut self, name: &str, right: &str) -> Option<&'a str> {
        let node = self.required(name, right)?;
        match &node.content {
            Content::Text(text) => Some(text),
            _ => {
                self.wrong(name, format!("{} was given", node.describe()), right);
                None
            }
        }
    }

    /// The text of a field that may be absent: `Some(None)` then, and `None` if it is wrong.
    pub fn optional_text(&mut self, name: &str, right: &str) -> Option<Option<&'a str>> {
        match self.find(name).map(|node| &node.content) {
            None | Some(Content::Null) => Some(None),
            Some(_) => self.text(name, right).map(Some),
        }
    }

    /// A name of the protocol's form.
    pub fn name(&mut self, name: &str, what: &'static str) -> Option<String> {
        let right = "a text: 1 to 64 of a-z, 0-9 and _, a letter first";
        let text = self.text(name, right)?;
        self.checked(name, check_name(what, text))?;
        Some(text.to_owned())
    }

    /// The description, empty if absent.
    pub fn description(&mut self) -> Option<String> {
        let right = format!("a text of up to {DESCRIPTION_BYTES_MAX} bytes");
        let text = self.optional_text("description", &right)?.unwrap_or_default();
        if text.len() > DESCRIPTION_BYTES_MAX {
            self.wrong("description", format!("it is {} bytes long", text.len()), right);
            return None;
        }
        Some(text.to_owned())
    }

    /// A version, 1 and up.
    pub fn version(&mut self) -> Option<u32> {
        let right = "a whole number, 1 and up";
        let node = self.required("version", right)?;
        match node.content {
            Content::Integer(v) if v >= 1 && v <= i128::from(u32::MAX) => Some(v as u32),
            _ => {
                self.wrong("version", format!("{} was given", node.describe()), right);
                None
            }
        }
    }

    /// The items of a list that must be there, 1 to `limit`.
    pub fn list(&mut self, name: &str, limit: usize) -> Option<&'a [Node]> {
        let right = format!("a list of 1 to {limit} items");
        let node = self.required(name, &right)?;
        match &node.content {
            Content::List(items) if !items.is_empty() && items.len() <= limit => Some(items),
            _ => {
                self.wrong(name, format!("{} was given", node.describe()), right);
                None
            }
        }
    }

    /// The names in a list that must be there, 1 to `limit`, each once.
    pub fn names(&mut self, name: &str, what: &'static str, limit: usize) -> Option<Vec<String>> {
        let items = self.list(name, limit)?;
        let mut names: Vec<String> = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            let field = format!("{}[{at}]", self.path_of(name));
            match &item.content {
                Content::Text(text) => match check_name(what, text) {
                    Ok(()) if names.contains(text) => {
                        self.notes.add(item.line, field, format!("{text} was given twice"), "give it once");
                    }
                    Ok(()) => names.push(text.clone()),
                    Err(error) => self.notes.add_decode(item.line, field, &error),
                },
                _ => self.notes.add(item.line, field, format!("{} was given", item.describe()), "a name"),
            }
        }
        (names.len() == items.len()).then_some(names)
    }

    /// The value of a check; notes its error at the field.
    pub fn checked<T>(&mut self, name: &str, result: Result<T, DecodeError>) -> Option<T> {
        let line = self.find(name).map_or(self.line, |node| node.line);
        let field = self.path_of(name);
        result.inspect_err(|error| self.notes.add_decode(line, field, error)).ok()
    }

    /// A truth value, false if absent.
    pub fn flag(&mut self, name: &str) -> Option<bool> {
        match self.value(name) {
            None => Some(false),
            Some(Node { content: Content::Bool(flag), .. }) => Some(*flag),
            Some(node) => {
                self.wrong(name, format!("{} was given", node.describe()), "true or false");
                None
            }
        }
    }

    /// What was given for a field, if anything was.
    pub fn value(&self, name: &str) -> Option<&'a Node> {
        self.find(name).filter(|node| node.content != Content::Null)
    }

    /// Whether the field was given with a value.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some_and(|node| node.content != Content::Null)
    }

    fn required(&mut self, name: &str, right: &str) -> Option<&'a Node> {
        let node = self.find(name);
        if node.is_none() {
            let field = self.path_of(name);
            self.notes.add(self.line, field, "the field is missing", format!("give {right}"));
        }
        node
    }

    fn find(&self, name: &str) -> Option<&'a Node> {
        self.fields.iter().find(|(field, _, _)| field == name).map(|(_, _, node)| node)
    }
}

fn list_of(before: &str, names: &[&str]) -> String {
    format!("{before} {}", names.join(", "))
}
