//! Somebody who changes the catalog while faults strike: appends features to the group that clients write, widens and drops
//! some and gives others further names, defines new groups and views, says again what stands, and asks for what must be
//! refused, by the call of `stoa apply`.
//!
//! One request is settled before the next is made, as a person does it: one whose outcome is open is made again until it
//! is known. So what the catalog must hold is known, too, and in the end it must hold that and nothing else on every node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stoa_client::{AdminError, ReadOptions, Rows, WriteRow, WriterOptions};
use stoa_protocol::catalog::{Definition, Feature, GroupDefinition, ViewDefinition};
use stoa_protocol::position::PartitionPosition;
use stoa_protocol::widen::widen;
use stoa_protocol::{ErrorClass, ErrorCode, FeatureType, ItemType, MapVersion, Position, Storage, Value};
use stoa_raft::root::RootState;

use super::{CATALOG, NAME, Shared};
use crate::chance::Chance;
use crate::clock::WALL_BASE_US;
use crate::judges::Broken;
use crate::world::{SimClient, now};

const CALL_LIMIT: Duration = Duration::from_secs(2);
/// Between two attempts at one request.
const PAUSE: Duration = Duration::from_millis(100);
/// Features that a run appends to the group at the most.
const APPENDED_MAX: usize = 8;
/// Further names of one feature.
const ALIASES_MAX: usize = 2;
const TYPES: [FeatureType; 8] = [
    FeatureType::Int8,
    FeatureType::Int32,
    FeatureType::String,
    FeatureType::Float32,
    FeatureType::Float64,
    FeatureType::Bool,
    FeatureType::Array(ItemType::Int64),
    FeatureType::FixedArray { items: 3 },
];
/// Keys that nobody else uses: those of the rows with appended features.
const FIRST_KEY: i64 = 2_000_000;
const JUDGE: &str = "the catalog is what was defined";

/// What is to become of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Should {
    BeTaken,
    BeRefused,
}

struct Asked {
    text: String,
    definitions: Vec<Definition>,
    should: Should,
    /// Whether it may have been taken by a call whose answer was lost.
    unsure: bool,
}

/// The one who defines.
pub struct Definer {
    client: SimClient,
    shared: Shared,
    chance: Chance,
    pause: Duration,
    /// By kind and full name: what was acknowledged last.
    stands: BTreeMap<String, Definition>,
    /// How often the group that clients write has changed.
    changes: u32,
    groups: u32,
    views: u32,
    version: MapVersion,
    open: Option<Asked>,
}

impl Definer {
    /// One that knows the catalog with which a run begins.
    pub fn new(client: SimClient, shared: Shared, seed: u64) -> Self {
        let chance = Chance::new(seed, "definer");
        let pause = chance.between(Duration::from_millis(500), Duration::from_secs(5));
        let mut stands = BTreeMap::new();
        parse(CATALOG).into_iter().for_each(|definition| {
            stands.insert(name_of(&definition), definition);
        });
        let (changes, groups, views, version, open) = (0, 0, 0, MapVersion(0), None);
        Self { client, shared, chance, pause, stands, changes, groups, views, version, open }
    }

    /// Works until told to stop; one request may be open then.
    pub async fn work(mut self, stop: Arc<AtomicBool>) -> Self {
        loop {
            let end = now() + self.chance.between(Duration::from_millis(100), self.pause);
            while now() < end && !stop.load(Ordering::Relaxed) {
                tokio::time::sleep(PAUSE).await;
            }
            if stop.load(Ordering::Relaxed) {
                return self;
            }
            if self.open.is_none() {
                self.open = Some(self.draw());
            }
            while self.open.is_some() && !stop.load(Ordering::Relaxed) {
                self.ask().await;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Settles the request that is open, in a cluster that is whole.
    ///
    /// # Errors
    /// If it is not settled in time.
    pub async fn finish(&mut self, limit: Duration) -> Result<(), String> {
        let end = now() + limit;
        while let Some(open) = &self.open {
            if now() > end {
                return Err(format!("{limit:?} after all was healed, a definition is not settled: {}", open.text));
            }
            self.ask().await;
        }
        Ok(())
    }

    /// Judges what a node has of the catalog, when all is over.
    pub fn judge(&self, node: u64, state: &RootState) -> Option<String> {
        let projects = state.projects.iter().cloned().map(Definition::Project);
        let entities = state.entities.iter().cloned().map(Definition::Entity);
        let groups = state.groups.iter().map(|(group, _)| Definition::Group(group.clone()));
        let views = state.views.iter().map(|(view, _)| Definition::View(view.clone()));
        let grants = state.grants.iter().cloned().map(Definition::Grant);
        let all = projects.chain(entities).chain(groups).chain(views).chain(grants);
        // What expires is defined by those who write it.
        let mut there: BTreeMap<String, Definition> = all.map(|what| (name_of(&what), what)).collect();
        there.retain(|name, _| !name.ends_with(super::ager::GROUP));
        if let Some(name) = there.keys().find(|name| !self.stands.contains_key(*name)) {
            return Some(format!("node {node} has {name}, and nobody was told that it was taken"));
        }
        if let Some((name, _)) = self.stands.iter().find(|(name, what)| there.get(*name) != Some(*what)) {
            return Some(format!(
                "node {node} has {:?}, and acknowledged was {:?}",
                there.get(name),
                self.stands[name]
            ));
        }
        let of_group = |group: &stoa_protocol::FeatureGroup| group.full_name() == NAME;
        let grown = state.groups.iter().find(|(_, group)| of_group(group)).map(|(_, group)| group.schema_version);
        let wanted = 1 + self.changes;
        (grown != Some(wanted)).then(|| format!("node {node} has schema {grown:?} of {NAME}, and it came to {wanted}"))
    }

    /// Writes rows with the features that were appended, and reads them by a view of them, with the defaults of a row that
    /// names none; in a cluster that is whole.
    ///
    /// # Errors
    /// If that does not work.
    pub async fn use_appended(&self, client: &SimClient, at: usize) -> Result<(), String> {
        let Some(view) = self.stands.get(&format!("view shop/more@{}", self.views)) else { return Ok(()) };
        let Definition::View(view) = view else { unreachable!("it is one") };
        let names: Vec<&str> = view.features.iter().map(|feature| feature.feature.as_str()).collect();
        let open = |error: &dyn std::fmt::Display| format!("what was appended cannot be used: {error}");
        let group = client.group(NAME).await.map_err(|e| open(&e))?;
        let definition = group.definition();
        let feature = |name: &&str| definition.feature(name).map(|at| &definition.features[usize::from(at)]);
        let features: Option<Vec<&Feature>> = names.iter().map(feature).collect();
        let features = features.ok_or_else(|| format!("a feature of {names:?} is not there: {definition:?}"))?;
        let given: Vec<Value> = features.iter().map(|feature| some_value(feature.ty)).collect();
        let kept: Vec<Value> = given.iter().zip(&features).map(|(value, feature)| as_read(value, feature)).collect();
        let never: Vec<Value> = features.iter().map(|feature| default_of(feature)).collect();
        let key = FIRST_KEY + 2 * at as i64;
        for (key, names, values, wanted) in
            [(key, &names[..], given.clone(), kept.clone()), (key + 1, &names[..1], vec![given[0].clone()], never)]
        {
            let event_time = WALL_BASE_US + (now() - self.shared.start).as_micros() as i64;
            let row = WriteRow { key: vec![key.into()], event_time, sequence: 0, values: Some(values) };
            let writer = group.writer(names, WriterOptions::default()).map_err(|e| open(&e))?;
            let result = writer.write_rows(&[row]).await.map_err(|e| open(&e))?.pop().ok_or("no batch was written")?;
            let answer = result.result.map_err(|e| open(&e))?;
            let mut position = Position::new();
            position.raise(PartitionPosition {
                set: definition.set,
                incarnation: answer.incarnation,
                partition: result.partition,
                index: answer.index,
            });
            let opened = client.view(&format!("shop/more@{}", self.views)).await.map_err(|e| open(&e))?;
            let mut rows = Rows::new(&["id"]);
            rows.push(&[key.into()]).expect("one key column, one value");
            let options = ReadOptions { at_least: Some(position), deadline: CALL_LIMIT, ..ReadOptions::default() };
            let answer = opened.get(&rows, &options).await.map_err(|e| open(&e))?;
            let read: Vec<Value> = answer.columns().map(|column| column.to_value(0)).collect();
            let first = kept[0].clone();
            let wanted: Vec<Value> = std::iter::once(first).chain(wanted.into_iter().skip(1)).collect();
            if read != wanted {
                return Err(format!("{names:?} of key {key} should be {wanted:?}, and read were {read:?}"));
            }
        }
        Ok(())
    }

    fn draw(&mut self) -> Asked {
        let text = match self.chance.below(10) {
            0..=3 => {
                let (group, should) = self.changed();
                let text = format!("{group:?}");
                return Asked { text, definitions: vec![Definition::Group(group)], should, unsure: false };
            }
            4 => extra_group(self.groups + 1, "Int64"),
            5..=6 => self.view(self.views + 1),
            7 => {
                let names: Vec<&String> = self.stands.keys().collect();
                let stands = self.stands[*self.chance.pick(&names)].clone();
                let text = format!("{stands:?}");
                return Asked { text, definitions: vec![stands], should: Should::BeTaken, unsure: false };
            }
            _ => {
                let text = self.unfit();
                return Asked { definitions: parse(&text), text, should: Should::BeRefused, unsure: false };
            }
        };
        Asked { definitions: parse(&text), text, should: Should::BeTaken, unsure: false }
    }

    /// The group that clients write, as it stands.
    fn row_group(&self) -> &GroupDefinition {
        match &self.stands["group shop/row@1"] {
            Definition::Group(group) => group,
            other => unreachable!("{other:?} is no group"),
        }
    }

    /// Whether a view reads the feature at this place.
    fn is_read(&self, at: usize) -> bool {
        let feature = &self.row_group().features[at];
        let reads = |view: &ViewDefinition| view.features.iter().any(|read| feature.is_called(&read.feature));
        self.stands.values().any(|what| matches!(what, Definition::View(view) if reads(view)))
    }

    /// The group that clients write after one change, and what is to become of it.
    fn changed(&self) -> (GroupDefinition, Should) {
        let mut group = self.row_group().clone();
        let first = crate::rows::FEATURES.len();
        let appended = group.features.len() - first;
        let at = self.chance.below(group.features.len() as u64) as usize;
        let feature = &mut group.features[at];
        match self.chance.below(6) {
            0 | 1 if appended < APPENDED_MAX => {
                let ty = *self.chance.pick(&TYPES);
                let mut feature = Feature::new(&format!("more_{}", appended + 1), ty);
                let storages = [Storage::Float16, Storage::Int8Scaled].into_iter();
                let fitting = storages.filter(|storage| storage.check_type(ty).is_ok()).map(Some);
                feature.storage = *self.chance.pick(&fitting.chain([None]).collect::<Vec<_>>());
                if self.chance.hits(500_000) {
                    feature.default = Some(bytes_of(&another_value(ty), ty));
                }
                group.features.push(feature);
            }
            2 => feature.dropped = true,
            3 if feature.aliases.len() < ALIASES_MAX => {
                let alias = format!("{}_{}", feature.name, feature.aliases.len() + 1);
                feature.aliases.push(alias);
            }
            _ => {
                // One that can be widened, if there is any.
                let wider = |ty| match ty {
                    FeatureType::Int8 => Some(FeatureType::Int32),
                    FeatureType::Int32 => Some(FeatureType::Int64),
                    FeatureType::Float32 => Some(FeatureType::Float64),
                    _ => None,
                };
                let can =
                    |feature: &Feature| !feature.dropped && feature.storage.is_none() && wider(feature.ty).is_some();
                let narrow: Vec<usize> = (0..group.features.len()).filter(|at| can(&group.features[*at])).collect();
                if !narrow.is_empty() {
                    let feature = &mut group.features[*self.chance.pick(&narrow)];
                    let ty = wider(feature.ty).expect("it was chosen for that");
                    feature.default = feature.default.as_ref().map(|bytes| widen(feature.ty, ty, bytes).to_vec());
                    feature.ty = ty;
                }
            }
        }
        let goes =
            |at: usize| group.features[at].dropped && self.row_group().features.get(at).is_some_and(|f| !f.dropped);
        match (0..group.features.len()).any(|at| goes(at) && self.is_read(at)) {
            true => (group, Should::BeRefused),
            false => (group, Should::BeTaken),
        }
    }

    /// A view of the group's first feature and some of those that were appended, by any of their names.
    fn view(&self, version: u32) -> String {
        let head = "kind: feature_view\nproject: shop\nname: more\nentities: [item]";
        let mut text = format!("{head}\nversion: {version}\nfeatures:\n  - {{group: {NAME}, feature: number}}\n");
        let appended = self.row_group().features.iter().skip(crate::rows::FEATURES.len());
        for feature in appended.filter(|feature| !feature.dropped && self.chance.hits(700_000)) {
            let names: Vec<&str> = feature.names().collect();
            text.push_str(&format!("  - {{group: {NAME}, feature: {}}}\n", self.chance.pick(&names)));
        }
        text
    }

    /// Something that the catalog must not take, some of it behind something that it would.
    fn unfit(&self) -> String {
        let next = extra_group(self.groups + 1, "Int64");
        let nowhere = "kind: feature_view\nproject: shop\nname: nowhere\nversion: 1\nentities: [item]\nfeatures:\n";
        match self.chance.below(6) {
            // Another type of a feature that stands, and another storage.
            0 => first_group().replace("type: Bool", "type: Int8"),
            4 => first_group().replace("4>'}", "4>', storage: float16}"),
            // Features taken away.
            1 => first_group().replace("  - {name: vector, type: 'FixedArray<Float32, 4>'}\n", ""),
            // All or nothing: the group before it must not be there.
            2 => format!("{next}---\n{nowhere}  - {{group: {NAME}, feature: no_such_feature}}\n"),
            3 => next.replace("entity: item", "entity: nothing"),
            // A view that stands, with other features.
            _ => {
                let other = "kind: feature_view\nproject: shop\nname: row\nversion: 1\nentities: [item]\nfeatures:\n";
                format!("{other}  - {{group: {NAME}, feature: text}}\n")
            }
        }
    }

    /// Asks once for what is open.
    async fn ask(&mut self) {
        let Some(Asked { text, definitions, should, unsure }) = self.open.take() else { return };
        self.shared.trace.note(format_args!("define {text:?}"));
        let answer = self.client.apply(definitions.clone(), CALL_LIMIT).await;
        self.shared.trace.note(format_args!("defined {answer:?}"));
        match answer {
            Ok(answer) => {
                if should == Should::BeRefused {
                    return self.broken(format!("it was taken, and contradicts what stands: {text}"));
                }
                let new = definitions.iter().any(|what| self.stands.get(&name_of(what)) != Some(what));
                let counted = (answer.created + answer.unchanged) as usize == definitions.len();
                // What was taken by a call whose answer was lost is called unchanged by the next one.
                let told = new || answer.created == 0;
                if !counted || !told || answer.version < self.version || (new && answer.version == self.version) {
                    let before = self.version;
                    self.broken(format!("{answer:?} at version {before:?}, new: {new}, for {text}"));
                }
                self.version = answer.version;
                self.take(definitions, new);
            }
            // Some node is of an earlier program, which could not read it. It is given up.
            Err(error) if is_too_early(&error) && !unsure => {}
            Err(error) if is_too_early(&error) => self.open = Some(Asked { text, definitions, should, unsure }),
            Err(error) if error.class() == ErrorClass::Reject => {
                if should == Should::BeTaken {
                    self.broken(format!("it was refused, and fits what stands: {error}: {text}"));
                }
                self.shared.lock().extra.refused_definitions += 1;
            }
            Err(_) => self.open = Some(Asked { text, definitions, should, unsure: true }),
        }
    }

    fn take(&mut self, definitions: Vec<Definition>, new: bool) {
        self.shared.lock().extra.definitions += u64::from(new);
        for what in definitions {
            match &what {
                Definition::Group(group) if group.name == "row" => self.changes += u32::from(group != self.row_group()),
                Definition::Group(group) => self.groups = self.groups.max(group.version),
                Definition::View(view) if view.name == "more" => self.views = self.views.max(view.version),
                _ => {}
            }
            self.stands.insert(name_of(&what), what);
        }
    }

    fn broken(&self, what: String) {
        self.shared.lock().broken.push(Broken { judge: JUDGE, what });
    }
}

/// The group that clients write, as it was at first.
fn first_group() -> String {
    let documents = CATALOG.split("---\n").find(|document| document.contains("kind: feature_group"));
    documents.expect("the catalog has the group").to_owned()
}

/// Whether the cluster is at too early a version for what was asked.
fn is_too_early(error: &AdminError) -> bool {
    let AdminError::Rejected { error, .. } = error else { return false };
    error.refusal().is_some_and(|refusal| refusal.code == ErrorCode::WrongVersion)
}

fn extra_group(version: u32, ty: &str) -> String {
    let head = "kind: feature_group\nproject: shop\nname: extra\nentity: item\nevent_time: event_time";
    format!("{head}\nversion: {version}\nfeatures: [{{name: a, type: {ty}}}, {{name: b, type: String}}]\n")
}

fn parse(text: &str) -> Vec<Definition> {
    stoa::definitions::parse_definitions("catalog", text).expect("definitions of our own are well formed")
}

/// The kind and the name of what a definition defines.
fn name_of(definition: &Definition) -> String {
    match definition {
        Definition::Project(project) => format!("project {}", project.name),
        Definition::Entity(entity) => format!("entity {}", entity.name),
        Definition::Group(group) => format!("group {}/{}@{}", group.project, group.name, group.version),
        Definition::Grant(grant) => format!("grant {grant:?}"),
        Definition::View(view) => format!("view {}/{}@{}", view.project, view.name, view.version),
    }
}

fn some_value(ty: FeatureType) -> Value {
    match ty {
        FeatureType::Int8 | FeatureType::Int32 | FeatureType::Int64 => Value::Int(-41),
        FeatureType::String => Value::String("appended".into()),
        FeatureType::Float32 => Value::Float32(-0.3),
        FeatureType::Float64 => Value::Float64(-0.25),
        FeatureType::Bool => Value::Bool(true),
        FeatureType::FixedArray { items } => Value::FixedArray((0..items).map(|at| 0.7 - f32::from(at)).collect()),
        _ => Value::Array(vec![Value::Int(1), Value::Int(2)]),
    }
}

/// What a default is set to.
fn another_value(ty: FeatureType) -> Value {
    match ty {
        FeatureType::Int8 | FeatureType::Int32 | FeatureType::Int64 => Value::Int(-7),
        FeatureType::String => Value::String("nothing yet".into()),
        FeatureType::Float32 => Value::Float32(-1.5),
        FeatureType::Float64 => Value::Float64(-1.5),
        FeatureType::Bool => Value::Bool(false),
        FeatureType::FixedArray { items } => Value::FixedArray((0..items).map(|at| f32::from(at) + 0.1).collect()),
        _ => Value::Array(Vec::new()),
    }
}

fn bytes_of(value: &Value, ty: FeatureType) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.encode(ty, &mut bytes).expect("it is made for the type");
    bytes
}

/// What a row has that was written without the feature.
fn default_of(feature: &Feature) -> Value {
    let bytes = feature.default_as_read();
    bytes.map_or(Value::Null, |bytes| Value::decode(feature.ty, &bytes).expect("the catalog checks defaults"))
}

/// A value that was written, as it is read.
fn as_read(value: &Value, feature: &Feature) -> Value {
    let Some(storage) = feature.storage else { return value.clone() };
    let bytes = storage.as_read(&bytes_of(value, feature.ty));
    Value::decode(feature.ty, &bytes).expect("what is read is of the type")
}
