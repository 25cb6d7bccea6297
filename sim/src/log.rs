//! What the processes of a run log, of every level, as lines of its trace: with the name of the process, for whoever asks
//! what a node thought at that moment. It is in the file of a trace alone and not in its hash, so that a run is the same run
//! with and without.

use std::fmt::{self, Write as _};

use stoa_env::Process;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, Interest};
use tracing::{Event, Metadata, Subscriber};

use crate::trace::Trace;

/// Takes every event of this thread into the trace, for as long as the guard lives.
pub fn follow(trace: Trace) -> DefaultGuard {
    tracing::subscriber::set_default(Log { trace })
}

struct Log {
    trace: Trace,
}

impl Subscriber for Log {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut words = Words(String::new());
        event.record(&mut words);
        let process = Process::current().map(|process| process.name()).unwrap_or_default();
        let (level, target) = (event.metadata().level(), event.metadata().target());
        self.trace.note_beside(format_args!("log {process} {level} {target}{}", words.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The fields of an event in one line.
struct Words(String);

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let before = self.0.len();
        write!(self.0, " {}={value:?}", field.name()).expect("a string takes what it is given");
        let told = self.0.split_off(before).replace('\n', " ");
        self.0.push_str(&without_times_of_day(&told));
    }
}

/// `HH:MM:SS.` with what digits follow, as openraft shows a moment: it asks the real calendar for that, and for nothing else.
fn without_times_of_day(told: &str) -> String {
    const SHAPE: &[u8] = b"dd:dd:dd.d";
    let fits = |window: &[u8]| {
        let same = |(byte, shape): (&u8, &u8)| if *shape == b'd' { byte.is_ascii_digit() } else { byte == shape };
        window.iter().zip(SHAPE).all(same)
    };
    let mut out = String::with_capacity(told.len());
    let mut rest = told;
    while let Some(at) = rest.as_bytes().windows(SHAPE.len()).position(fits) {
        out.push_str(&rest[..at]);
        out.push_str("(time of day)");
        rest = rest[at + SHAPE.len()..].trim_start_matches(|c: char| c.is_ascii_digit());
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::now;

    #[test]
    fn times_of_day_are_left_out_and_nothing_else() {
        let told = "tick: 1, now: 10:06:28.764748, lease: 1:2:3, at 23:59:59.9";
        assert_eq!(without_times_of_day(told), "tick: 1, now: (time of day), lease: 1:2:3, at (time of day)");
        assert_eq!(without_times_of_day("ä 10:06:28"), "ä 10:06:28");
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn events_are_in_the_file_with_their_process_and_not_in_the_hash() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let trace = Trace::new(now(), Some(file.path())).unwrap();
        trace.note(format_args!("one"));
        let before = trace.digest();
        {
            let _follow = follow(trace.clone());
            let task = Process::named("n7").spawn("teller", async {
                tracing::trace!(target: "stoa_x", count = 3, "two\nlines");
            });
            task.await.unwrap();
        }
        tracing::error!("nobody follows any more");
        trace.flush().unwrap();
        assert_eq!(trace.digest(), before);
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(text, "0 one\n0 log n7 TRACE stoa_x message=two lines count=3\n");
    }
}
