//! A YAML document as a tree whose every part knows its line, so that a wrong value can be pointed at after parsing.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A part of a document.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    /// Its line in the text that was parsed, from 1.
    pub line: usize,
    /// What it is.
    pub content: Content,
}

/// What a part of a document is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// Keys with their lines; the order is that of the document.
    Mapping(Vec<(String, usize, Node)>),
}

impl Node {
    /// The tree of a text that holds one document.
    pub fn parse(text: &str) -> Result<Self, serde_saphyr::Error> {
        // Only `true` and `false` are booleans: a feature may be called `no`. A snippet of the file in each message
        // would hide the others.
        let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
        serde_saphyr::from_str_with_options(text, options)
    }

    /// The content in words, for messages.
    pub fn describe(&self) -> String {
        match &self.content {
            Content::Null => "nothing".into(),
            Content::Bool(v) => format!("the boolean {v}"),
            Content::Integer(v) => format!("the number {v}"),
            Content::Float(v) => format!("the number {v}"),
            Content::Text(v) => format!("the text {v:?}"),
            Content::List(v) => format!("a list of {} items", v.len()),
            Content::Mapping(v) => format!("a mapping of {} fields", v.len()),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Content>::deserialize(deserializer)?;
        Ok(Self { line: spanned.referenced.line() as usize, content: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a mapping")
    }
    fn visit_unit<E: Error>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }
    fn visit_none<E: Error>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_bool<E: Error>(self, v: bool) -> Result<Content, E> {
        Ok(Content::Bool(v))
    }
    fn visit_i64<E: Error>(self, v: i64) -> Result<Content, E> {
        Ok(Content::Integer(v.into()))
    }
    fn visit_u64<E: Error>(self, v: u64) -> Result<Content, E> {
        Ok(Content::Integer(v.into()))
    }
    fn visit_i128<E: Error>(self, v: i128) -> Result<Content, E> {
        Ok(Content::Integer(v))
    }
    fn visit_f64<E: Error>(self, v: f64) -> Result<Content, E> {
        Ok(Content::Float(v))
    }
    fn visit_str<E: Error>(self, v: &str) -> Result<Content, E> {
        Ok(Content::Text(v.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Content::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            fields.push((key.value, key.referenced.line() as usize, map.next_value()?));
        }
        Ok(Content::Mapping(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_knows_its_line() {
        let text = "# note\nkind: x\nlist:\n  - {a: 1,\n     b: no}\n  - 2.5\nempty:\nflag: true\n";
        let node = Node::parse(text).unwrap();
        let Content::Mapping(fields) = &node.content else { panic!("{node:?}") };
        let lines: Vec<_> = fields.iter().map(|(name, line, _)| (name.as_str(), *line)).collect();
        assert_eq!(lines, [("kind", 2), ("list", 3), ("empty", 7), ("flag", 8)]);
        let Content::List(items) = &fields[1].2.content else { panic!("{node:?}") };
        let Content::Mapping(inner) = &items[0].content else { panic!("{node:?}") };
        assert_eq!(inner[1].2, Node { line: 5, content: Content::Text("no".into()) });
        assert_eq!(items[1], Node { line: 6, content: Content::Float(2.5) });
        assert_eq!(fields[2].2.content, Content::Null);
        assert_eq!(fields[3].2.content, Content::Bool(true));
    }
}
