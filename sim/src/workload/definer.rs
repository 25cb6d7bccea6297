//! Somebody who changes the catalog while faults strike: appends features to the group that clients write, defines new
//! groups and views, says again what stands, and asks for what must be refused, by the call of `stoa apply`.
//!
//! One request is settled before the next is made, as a person does it: one whose outcome is open is made again until it
//! is known. So what the catalog must hold is known, too, and in the end it must hold that and nothing else on every node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stoa_client::{ReadOptions, Rows, WriteRow, WriterOptions};
use stoa_protocol::catalog::Definition;
use stoa_protocol::position::PartitionPosition;
use stoa_protocol::{ErrorClass, MapVersion, Position, Value};
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
const TYPES: [&str; 5] = ["Int32", "String", "Float64", "Bool", "Array<Int64>"];
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
}

/// The one who defines.
pub struct Definer {
    client: SimClient,
    shared: Shared,
    chance: Chance,
    pause: Duration,
    /// By kind and full name: what was acknowledged last.
    stands: BTreeMap<String, Definition>,
    appended: Vec<(String, &'static str)>,
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
        let (appended, groups, views, version, open) = (Vec::new(), 0, 0, MapVersion(0), None);
        Self { client, shared, chance, pause, stands, appended, groups, views, version, open }
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
        let wanted = 1 + self.appended.len() as u32;
        (grown != Some(wanted)).then(|| format!("node {node} has schema {grown:?} of {NAME}, and it grew to {wanted}"))
    }

    /// Writes rows with the features that were appended, and reads them by a view of them; in a cluster that is whole.
    ///
    /// # Errors
    /// If that does not work.
    pub async fn use_appended(&self, client: &SimClient, at: usize) -> Result<(), String> {
        let Some(view) = self.stands.get(&format!("view shop/more@{}", self.views)) else { return Ok(()) };
        let Definition::View(view) = view else { unreachable!("it is one") };
        let features: Vec<&str> = view.features.iter().map(|feature| feature.feature.as_str()).collect();
        let open = |error: &dyn std::fmt::Display| format!("what was appended cannot be used: {error}");
        let group = client.group(NAME).await.map_err(|e| open(&e))?;
        let types: BTreeMap<&str, &str> = self.appended.iter().map(|(name, ty)| (name.as_str(), *ty)).collect();
        let values: Vec<Value> =
            features.iter().map(|name| types.get(name).map_or(Value::Int(7), |ty| some_value(ty))).collect();
        let event_time = WALL_BASE_US + (now() - self.shared.start).as_micros() as i64;
        let key = FIRST_KEY + at as i64;
        let row = WriteRow { key: vec![key.into()], event_time, sequence: 0, values: Some(values.clone()) };
        let writer = group.writer(&features, WriterOptions::default()).map_err(|e| open(&e))?;
        let result = writer.write_rows(&[row]).await.map_err(|e| open(&e))?.pop().ok_or("no batch was written")?;
        let answer = result.result.map_err(|e| open(&e))?;
        let mut position = Position::new();
        position.raise(PartitionPosition {
            set: group.definition().set,
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
        match read == values {
            true => Ok(()),
            false => Err(format!("{features:?} of key {key} were written as {values:?}, and read as {read:?}")),
        }
    }

    fn draw(&mut self) -> Asked {
        let (text, should) = match self.chance.below(8) {
            0..=1 if self.appended.len() < APPENDED_MAX => {
                let place = self.appended.len() + 1;
                let mut grown = self.appended.clone();
                grown.push((format!("more_{place}"), *self.chance.pick(&TYPES)));
                (row_group(&grown), Should::BeTaken)
            }
            2 => (extra_group(self.groups + 1, "Int64"), Should::BeTaken),
            3..=4 => (self.view(self.views + 1), Should::BeTaken),
            5 => {
                let names: Vec<&String> = self.stands.keys().collect();
                let stands = self.stands[*self.chance.pick(&names)].clone();
                let text = format!("{stands:?}");
                return Asked { text, definitions: vec![stands], should: Should::BeTaken };
            }
            _ => (self.unfit(), Should::BeRefused),
        };
        Asked { definitions: parse(&text), text, should }
    }

    /// A view of the group's first feature and some of those that were appended.
    fn view(&self, version: u32) -> String {
        let head = "kind: feature_view\nproject: shop\nname: more\nentities: [item]";
        let mut text = format!("{head}\nversion: {version}\nfeatures:\n  - {{group: {NAME}, feature: number}}\n");
        for (name, _) in self.appended.iter().filter(|_| self.chance.hits(700_000)) {
            text.push_str(&format!("  - {{group: {NAME}, feature: {name}}}\n"));
        }
        text
    }

    /// Something that the catalog must not take, some of it behind something that it would.
    fn unfit(&self) -> String {
        let next = extra_group(self.groups + 1, "Int64");
        let nowhere = "kind: feature_view\nproject: shop\nname: nowhere\nversion: 1\nentities: [item]\nfeatures:\n";
        match self.chance.below(5) {
            // Another type of a feature that stands.
            0 => row_group(&self.appended).replace("type: Float64", "type: Float32"),
            // Features taken away.
            1 => row_group(&self.appended).replace("  - {name: vector, type: 'FixedArray<Float32, 4>'}\n", ""),
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
        let Some(Asked { text, definitions, should }) = self.open.take() else { return };
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
            Err(error) if error.class() == ErrorClass::Reject => {
                if should == Should::BeTaken {
                    self.broken(format!("it was refused, and fits what stands: {error}: {text}"));
                }
                self.shared.lock().extra.refused_definitions += 1;
            }
            Err(_) => self.open = Some(Asked { text, definitions, should }),
        }
    }

    fn take(&mut self, definitions: Vec<Definition>, new: bool) {
        self.shared.lock().extra.definitions += u64::from(new);
        for what in definitions {
            match &what {
                Definition::Group(group) if group.name == "row" => {
                    let first = crate::rows::FEATURES.len();
                    let types = |ty: &str| *TYPES.iter().find(|known| **known == ty).expect("one of those drawn");
                    let appended = group.features[first..].iter();
                    self.appended = appended.map(|f| (f.name.clone(), types(&f.ty.to_string()))).collect();
                }
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

/// The group that clients write, with features after its last.
fn row_group(appended: &[(String, &str)]) -> String {
    let documents = CATALOG.split("---\n").find(|document| document.contains("kind: feature_group"));
    let mut text = documents.expect("the catalog has the group").to_owned();
    for (name, ty) in appended {
        text.push_str(&format!("  - {{name: {name}, type: {ty}}}\n"));
    }
    text
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

fn some_value(ty: &str) -> Value {
    match ty {
        "Int32" => Value::Int(41),
        "String" => Value::String("appended".into()),
        "Float64" => Value::Float64(0.25),
        "Bool" => Value::Bool(true),
        _ => Value::Array(vec![Value::Int(1), Value::Int(2)]),
    }
}
