//! A file of definitions, from bytes to definitions.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use stoa_protocol::catalog::Definition;

use super::error::{DefinitionError, DefinitionErrors};
use super::fields::Notes;
use super::kinds::definition;
use super::node::Node;

/// Bytes of a file of definitions: some ten thousand features with their descriptions.
pub const DEFINITIONS_BYTES_MAX: usize = 4 << 20;

/// Documents of a file of definitions.
pub const DOCUMENTS_MAX: usize = 4_096;

/// Reads a file of definitions; `-` has no meaning here.
pub fn load_definitions(path: &Path) -> Result<Vec<Definition>, DefinitionErrors> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(DEFINITIONS_BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        return Err(whole_file(&name, format!("it cannot be read: {error}"), "give a file of YAML documents"));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse_definitions(&name, text),
        // A file cut at the limit may end inside a character: the limit is what the user should hear of.
        Err(_) if bytes.len() > DEFINITIONS_BYTES_MAX => Err(too_large(&name)),
        Err(error) => {
            Err(whole_file(&name, format!("it is not UTF-8 at byte {}", error.valid_up_to()), "save it as UTF-8"))
        }
    }
}

/// The definitions of a text, in its order; `file` names it in messages. Fails with all errors of the text.
///
/// ```
/// let found = stoa::definitions::parse_definitions("shop.yaml", "kind: project\nname: shop\n").unwrap();
/// assert_eq!(found.len(), 1);
/// let errors = stoa::definitions::parse_definitions("shop.yaml", "kind: project\nnmae: shop\n").unwrap_err();
/// assert!(errors.to_string().starts_with("shop.yaml:2: document 1, nmae: there is no such field"));
/// ```
pub fn parse_definitions(file: &str, text: &str) -> Result<Vec<Definition>, DefinitionErrors> {
    if text.len() > DEFINITIONS_BYTES_MAX {
        return Err(too_large(file));
    }
    let documents = split_documents(text);
    if documents.len() > DOCUMENTS_MAX {
        let problem = format!("it has {} documents", documents.len());
        return Err(whole_file(file, problem, &format!("up to {DOCUMENTS_MAX}; split it")));
    }
    if documents.is_empty() {
        return Err(whole_file(file, "it has no definitions".into(), "documents with `kind`, separated by `---`"));
    }
    let mut errors = Vec::new();
    let mut definitions: Vec<(usize, Definition)> = Vec::new();
    for (at, (lines_before, text)) in documents.into_iter().enumerate() {
        let mut notes = Notes { file, document: at + 1, lines_before, errors: &mut errors };
        let node = match Node::parse(text) {
            Ok(node) => node,
            Err(error) => {
                let line = error.location().map_or(1, |location| location.line() as usize);
                notes.add(line, "", format!("it is not YAML: {error}"), "");
                continue;
            }
        };
        let Some(found) = definition(&mut notes, &node) else { continue };
        match definitions.iter().find(|(_, other)| identity(other) == identity(&found)) {
            Some((first, _)) => {
                let problem = format!("{} is defined in document {first} already", identity(&found));
                notes.add(node.line, "name", problem, "define it once");
            }
            None => definitions.push((at + 1, found)),
        }
    }
    if errors.is_empty() {
        Ok(definitions.into_iter().map(|(_, definition)| definition).collect())
    } else {
        Err(DefinitionErrors { errors })
    }
}

/// What may be defined once.
fn identity(definition: &Definition) -> String {
    match definition {
        Definition::Project(x) => format!("project {}", x.name),
        Definition::Entity(x) => format!("entity {}", x.name),
        Definition::Group(x) => format!("feature group {}/{}@{}", x.project, x.name, x.version),
        Definition::Grant(x) => format!("the grant of {}/{}@{} to {}", x.project, x.group, x.version, x.to),
        Definition::View(x) => format!("feature view {}/{}@{}", x.project, x.name, x.version),
    }
}

/// The documents of a text that hold more than comments, each with the number of lines before it.
///
/// Each is parsed by itself, so that an error in one does not hide those of the next. Cutting by lines is right: YAML
/// lets no content, not even a quoted text, have a line that begins with `---` and a blank (YAML 1.2.2, 9.1.2).
fn split_documents(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut start_line, mut at) = (0, 0, 0);
    for (line, content) in text.split_inclusive('\n').enumerate() {
        if content == "---" || content.strip_prefix("---").is_some_and(|rest| rest.starts_with([' ', '\t', '\r', '\n']))
        {
            documents.push((start_line, &text[start..at]));
            (start, start_line) = (at, line);
        }
        at += content.len();
    }
    documents.push((start_line, &text[start..]));
    documents.retain(|(_, text)| {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let text = text.strip_prefix("---").unwrap_or(text);
        text.lines().any(|line| !matches!(line.trim(), "" | "...") && !line.trim().starts_with('#'))
    });
    documents
}

fn too_large(file: &str) -> DefinitionErrors {
    whole_file(file, "it is too large".into(), &format!("up to {DEFINITIONS_BYTES_MAX} bytes; split it"))
}

fn whole_file(file: &str, problem: String, right: &str) -> DefinitionErrors {
    let (file, right) = (file.to_owned(), right.to_owned());
    let error = DefinitionError { file, document: 0, line: 0, field: String::new(), problem, right };
    DefinitionErrors { errors: vec![error] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stoa_protocol::catalog::{OnExpired, Ttl};
    use stoa_protocol::key::KeyType;
    use stoa_protocol::limits::LATE_HORIZON_US_DEFAULT;
    use stoa_protocol::storage::Storage;
    use stoa_protocol::types::FeatureType;
    use stoa_protocol::value::Value;

    const GOOD: &str = r#"# the shop
kind: project
name: shop
description: optional
---
kind: entity
name: product_store
keys: [{name: product_id, type: Int64}, {name: store_id, type: Int64}]
partition_by: [product_id]
---
# only a comment
---
kind: feature_group
project: shop
name: product_activity
version: 1
description: what sells
entity: product_store
event_time: event_time
ttl: 30d
on_expired: serve_last
late_horizon: 1d
features:
  - {name: units_7d, type: Int32, description: units}
  - {name: department_share, type: "FixedArray<Float32, 16>"}
---
kind: grant
project: customers
group: household_profile@1
features: [age, income]
to: shop
--- # the view
kind: feature_view
project: shop
name: rank_products
version: 1
entities: [household, product_store]
features:
  - {group: shop/product_catalog@1, feature: department}
  - {group: customers/household_profile@1, feature: age, as: household_age}
"#;

    #[test]
    fn a_file_of_every_kind_is_read_in_order() {
        let found = parse_definitions("shop.yaml", GOOD).unwrap();
        let [
            Definition::Project(project),
            Definition::Entity(entity),
            Definition::Group(group),
            Definition::Grant(grant),
            Definition::View(view),
        ] = &found[..]
        else {
            panic!("{found:?}")
        };
        assert_eq!((project.name.as_str(), project.description.as_str()), ("shop", "optional"));
        assert_eq!((entity.partition_by, entity.key_types()), (1, vec![KeyType::Int64, KeyType::Int64]));
        assert_eq!((group.event_time.as_deref(), group.late_horizon_us), (Some("event_time"), 86_400_000_000));
        assert_eq!(group.ttl, Some(Ttl { after_us: 30 * 86_400_000_000, on_expired: OnExpired::ServeLast }));
        assert_eq!(group.features[1].ty, FeatureType::FixedArray { items: 16 });
        assert_eq!((grant.group.as_str(), grant.version, grant.features.len()), ("household_profile", 1, 2));
        assert_eq!(view.features[1].alias.as_deref(), Some("household_age"));
    }

    #[test]
    fn what_may_be_absent_has_its_default() {
        let text = "kind: entity\nname: e\nkeys:\n- name: a\n  type: String\n- name: b\n  type: Date\n---\nkind: \
                    feature_group\nproject: p\nname: g\nversion: 1\nentity: e\nevent_time: none\nfeatures: [{name: x, \
                    type: Bool}]\n...\n";
        let found = parse_definitions("x", text).unwrap();
        let [Definition::Entity(entity), Definition::Group(group)] = &found[..] else { panic!("{found:?}") };
        assert_eq!(entity.partition_by, 2);
        assert_eq!((&group.event_time, group.late_horizon_us), (&None, LATE_HORIZON_US_DEFAULT));
        assert_eq!(group.ttl, None);
        let found = parse_definitions("x", &text.replace("event_time: none", "ttl: 1h")).unwrap();
        let Definition::Group(group) = &found[1] else { panic!("{found:?}") };
        assert_eq!(group.ttl, Some(Ttl { after_us: 3_600_000_000, on_expired: OnExpired::Expire }));
    }

    #[test]
    fn what_changes_of_a_feature_is_read_with_defaults_of_every_kind() {
        let text = r#"
kind: feature_group
project: p
name: g
version: 1
entity: e
features:
  - {name: a, type: Int16, default: -5, aliases: [aa, ab]}
  - {name: b, type: Float32, default: 0.1}
  - {name: c, type: String, default: ""}
  - {name: d, type: Date, default: "1970-01-02"}
  - {name: e, type: "FixedArray<Float32, 2>", default: [0, 1.5]}
  - {name: f, type: "Array<String>", default: [x, "y"]}
  - {name: g, type: Json, default: "{}"}
  - {name: h, type: "Decimal128(2)", default: 1.25}
  - {name: i, type: Bool, default: false}
  - {name: j, type: Bool, dropped: true}
  - {name: k, type: Float32, storage: float16, default: 0.1}
  - {name: l, type: "FixedArray<Float32, 2>", storage: int8_scaled}
  - {name: m, type: "FixedArray<Float32, 2>", storage: float16}
"#;
        let found = parse_definitions("x", text).unwrap();
        let [Definition::Group(group)] = &found[..] else { panic!("{found:?}") };
        let defaults = group.features.iter().filter_map(|feature| {
            let bytes = feature.default.as_ref()?;
            Some(Value::decode(feature.ty, bytes).unwrap().to_string())
        });
        assert!(defaults.eq(["-5", "0.1", "", "1", "[0, 1.5]", "[x, y]", "{}", "125", "false", "0.1"]));
        let storages: Vec<_> = group.features[9..].iter().map(|feature| feature.storage).collect();
        assert_eq!(storages, [None, Some(Storage::Float16), Some(Storage::Int8Scaled), Some(Storage::Float16)]);
        assert_eq!(group.features[0].aliases, ["aa", "ab"]);
        assert_eq!(group.features.iter().filter(|feature| feature.dropped).count(), 1);
    }

    #[test]
    fn all_errors_of_a_file_are_told_with_document_line_and_field() {
        let text = "kind: table\nname: x\n---\nkind: entity\nname: Bad\nkeys: [{name: a, type: Float32}, {name: b}]\n---\nkind: \
                    project\nnam: shop\n---\nkind: [\n---\nkind: project\nname: 7\n";
        let errors = parse_definitions("f.yaml", text).unwrap_err();
        let told: Vec<String> = errors.errors.iter().map(ToString::to_string).collect();
        let wanted = [
            "f.yaml:1: document 1, kind: the text \"table\" is no kind; give project, entity",
            "f.yaml:5: document 2, name: the name of an entity is \"Bad\"; it may be 1 to 64 of a-z",
            "f.yaml:6: document 2, keys[0].type: a key column's type is \"Float32\"; it may be Bool, Int8",
            "f.yaml:6: document 2, keys[1].type: the field is missing; give Bool, Int8",
            "f.yaml:9: document 3, nam: there is no such field; the fields are kind, name, description",
            "f.yaml:8: document 3, name: the field is missing; give a text",
            "document 4: it is not YAML",
            "f.yaml:14: document 5, name: the number 7 was given; a text",
        ];
        assert_eq!(told.len(), wanted.len(), "{told:#?}");
        for (told, wanted) in told.iter().zip(wanted) {
            assert!(told.contains(wanted), "{told}\nshould have\n{wanted}");
        }
    }

    #[test]
    fn each_mistake_says_what_would_be_right() {
        let group = |changes: &str| {
            format!(
                "kind: feature_group\nproject: p\nname: g\nversion: 1\nentity: e\nfeatures: [{{name: x, type: Bool}}]\n{changes}"
            )
        };
        let view = |feature: &str| {
            format!("kind: feature_view\nproject: p\nname: v\nversion: 1\nentities: [e]\nfeatures:\n- {feature}\n")
        };
        let two_keys = "kind: entity\nname: e\nkeys: [{name: a, type: Int64}, {name: b, type: Int64}]\n";
        let cases = [
            (
                format!("{two_keys}partition_by: [b]\n"),
                "[b] is not a prefix of the key columns; the first ones of [a, b]",
            ),
            (format!("{two_keys}partition_by: []\n"), "a list of 0 items was given; a list of 1 to 8 items"),
            (two_keys.replace("name: b", "name: a"), "a key column is a; it may be given once"),
            (group("late_horizon: 7\n"), "the number 7 was given; a whole number and s, m, h or d"),
            (group("late_horizon: 7w\n"), "\"7w\" was given"),
            (group("ttl: 0s\n"), "ttl: the text \"0s\" was given; a whole number and s, m, h or d from 1s to 3650d"),
            (group("ttl: 3651d\n"), "ttl: the text \"3651d\" was given"),
            (group("ttl: 7\n"), "ttl: the number 7 was given"),
            (group("ttl: 7d\non_expired: keep\n"), "on_expired: the text \"keep\" was given; expire"),
            (group("on_expired: expire\n"), "on_expired: the group has no ttl, so that no row expires; give a ttl"),
            (group("").replace("version: 1", "version: 0"), "the number 0 was given; a whole number, 1 and up"),
            (group("").replace("Bool", "Boolean"), "a feature type is \"Boolean\""),
            (group("").replace("Bool", "\"FixedArray<Float32, 0>\""), "the length of a FixedArray is 0"),
            (group("").replace("x, type: Bool", "x, type: Bool}, {name: x, type: Bool"), "x was given twice"),
            (group("").replace("Bool", "Int8, default: 300"), "features[0].default"),
            (
                group("").replace("Bool", "Bool, default: {a: 1}"),
                "a mapping of 1 fields was given; a value of type Bool",
            ),
            (group("").replace("Bool", "Json, default: '{'"), "is not JSON; a value of type Json"),
            (group("").replace("Bool", "Int32, default: ''"), "was given; a value of type Int32"),
            (group("").replace("Bool", "Bool, dropped: 1"), "the number 1 was given; true or false"),
            (
                group("").replace("Bool", "Float32, storage: half"),
                "features[0].storage: a storage is \"half\"; it may be float16 or int8_scaled",
            ),
            (group("").replace("Bool", "Float32, storage: 16"), "the number 16 was given; float16 or int8_scaled"),
            (
                group("").replace("Bool", "Float64, storage: float16"),
                "the storage of a feature is float16 of Float64; it may be of Float32 and FixedArray alone",
            ),
            (
                group("").replace("Bool", "Float32, storage: int8_scaled"),
                "int8_scaled of Float32; it may be of FixedArray of 2 items and more alone",
            ),
            (
                group("").replace("Bool", "Float32, storage: float16, default: 70000"),
                "features[0].default: the value is 70000.0, and float16 keeps values of up to 65504.0",
            ),
            (group("").replace("Bool", "Bool, aliases: [x]"), "a feature is x; it may be given once"),
            (group("").replace("entity: e\n", ""), "entity: the field is missing"),
            (view("{group: g@1, feature: f}"), "project/name@version"),
            (view("{group: p/g@1, feature: f, as: F}"), "features[0].as"),
            (view("{group: p/g@1, feature: f}\n- {group: q/g@1, feature: f}"), "give it another name with `as`"),
            ("kind: grant\nproject: p\ngroup: g\nfeatures: [f]\nto: q\n".into(), "name@version"),
            ("kind: grant\nproject: p\ngroup: g@1\nfeatures: [f, f]\nto: q\n".into(), "f was given twice"),
            (
                "kind: project\nname: a\n---\nkind: project\nname: a\n".into(),
                "project a is defined in document 1 already",
            ),
            ("kind: project\nname: a\nname: b\n".into(), "duplicate"),
            ("- kind\n".into(), "the document is a list"),
            ("name: x\n".into(), "kind: the field is missing"),
            ("# nothing\n".into(), "it has no definitions"),
        ];
        for (text, wanted) in cases {
            let message = parse_definitions("f.yaml", &text).expect_err(&text).to_string();
            assert!(message.contains(wanted), "{message}\nshould have\n{wanted}");
        }
    }

    #[test]
    fn a_row_that_is_too_wide_is_refused() {
        let features: Vec<String> =
            (0..5).map(|n| format!("{{name: f{n}, type: \"FixedArray<Float32, 4096>\"}}")).collect();
        let text = format!(
            "kind: feature_group\nproject: p\nname: g\nversion: 1\nentity: e\nfeatures: [{}]\n",
            features.join(", ")
        );
        let message = parse_definitions("f.yaml", &text).unwrap_err().to_string();
        assert!(message.contains("the bytes of one row is 81920"), "{message}");
    }

    #[test]
    fn size_documents_and_errors_are_bounded() {
        let large = " ".repeat(DEFINITIONS_BYTES_MAX + 1);
        assert!(parse_definitions("f", &large).unwrap_err().to_string().contains("too large"));
        let many = "---\nkind: x\n".repeat(DOCUMENTS_MAX + 1);
        assert!(parse_definitions("f", &many).unwrap_err().to_string().contains("4097 documents"));
        let wrong = "---\nkind: x\n".repeat(500);
        assert_eq!(parse_definitions("f", &wrong).unwrap_err().errors.len(), 100);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.yaml");
        assert!(load_definitions(&path).unwrap_err().to_string().contains("x.yaml: it cannot be read"));
        std::fs::write(&path, b"kind: \xff").unwrap();
        assert!(load_definitions(&path).unwrap_err().to_string().contains("not UTF-8 at byte 6"));
        std::fs::write(&path, GOOD).unwrap();
        assert_eq!(load_definitions(&path).unwrap().len(), 5);
    }
}
