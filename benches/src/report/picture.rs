//! All pictures of a run, and their files.

use std::collections::BTreeSet;

use super::model::Report;
use super::{curves, timeline};

/// A name's share of a file's name.
const SLUG_CHARS_MAX: usize = 48;

/// A picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// The name of its file, such as `latency.svg`: small letters, digits and dashes.
    pub file: String,
    /// What it shows. May have names that users gave.
    pub title: String,
    /// The whole file.
    pub svg: String,
}

/// Draws the pictures: latency against throughput, [`curves::CURVES_MAX`] systems in each; then the time lines. Equal
/// reports give equal bytes.
pub fn pictures(report: &Report) -> anyhow::Result<Vec<Picture>> {
    let mut files = BTreeSet::new();
    let mut pictures = Vec::new();
    for some in report.curves.chunks(curves::CURVES_MAX) {
        let title = "Latency against throughput".to_owned();
        let svg = curves::draw(&title, some)?;
        pictures.push(Picture { file: free_name("latency", &mut files), title, svg });
    }
    for timeline in &report.timelines {
        let file = free_name(&format!("timeline-{}", slug(&timeline.name)), &mut files);
        pictures.push(Picture { file, title: timeline.name.clone(), svg: timeline::draw(timeline)? });
    }
    Ok(pictures)
}

/// A name as part of a file's name, on any system and in any link.
fn slug(name: &str) -> String {
    let letters = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { ' ' });
    let words: String = letters.take(SLUG_CHARS_MAX).collect();
    let words: Vec<_> = words.split_whitespace().collect();
    if words.is_empty() { "unnamed".to_owned() } else { words.join("-") }
}

/// The name, or the name with the first number that makes it another than those before.
fn free_name(stem: &str, taken: &mut BTreeSet<String>) -> String {
    let numbered = (2..).map(|n| format!("{stem}-{n}.svg"));
    let mut names = std::iter::once(format!("{stem}.svg")).chain(numbered);
    let name = names.find(|name| !taken.contains(name)).expect("there is always a greater number");
    taken.insert(name.clone());
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::{Curve, Timeline};

    fn timeline(name: &str) -> Timeline {
        Timeline { name: name.into(), ..Timeline::default() }
    }

    #[test]
    fn each_picture_has_a_file_of_its_own() {
        let names = ["Loss of zone B", "loss of zone b", "../<script>", "üß", ""];
        let report = Report {
            curves: vec![Curve::default(); curves::CURVES_MAX + 1],
            timelines: names.map(timeline).to_vec(),
            ..Report::default()
        };
        let made = pictures(&report).unwrap();
        let files: Vec<_> = made.iter().map(|picture| picture.file.as_str()).collect();
        let expected = [
            "latency.svg",
            "latency-2.svg",
            "timeline-loss-of-zone-b.svg",
            "timeline-loss-of-zone-b-2.svg",
            "timeline-script.svg",
            "timeline-unnamed.svg",
            "timeline-unnamed-2.svg",
        ];
        assert_eq!(files, expected);
        assert_eq!(made, pictures(&report).unwrap(), "equal reports give equal bytes");
    }

    #[test]
    fn a_report_without_curves_has_no_pictures() {
        assert!(pictures(&Report::default()).unwrap().is_empty());
    }
}
