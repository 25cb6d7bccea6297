//! The workload `ranking`: what a ranking service asks for, of the demo's real features. One household, 100 products in one
//! store, a view over five groups; answers are compared with the files.

use std::path::PathBuf;
use std::sync::Arc;

use stoa::demo::shop::{VIEW, find_data, load_shop};
use stoa::demo::truth::Truth;
use stoa_client::{ReadOptions, View};
use stoa_env::Transport;

use crate::fixture::{BenchClient, BenchTransport};
use crate::load::{Outcome, Service};
use crate::rows::mix;

/// Products of a request.
pub const PRODUCTS: usize = 100;
/// Every so many answers one is compared with the files, all values of it.
const CHECK_EVERY: u64 = 16;

/// Reads of the demo's view.
pub struct Ranking<T: Transport> {
    view: View<T>,
    truth: Arc<Truth>,
    options: ReadOptions,
}

impl Ranking<BenchTransport> {
    /// Loads the demo's files from its directory, if that is not found by itself, and opens the view.
    pub async fn load(client: &BenchClient, data: Option<PathBuf>, options: ReadOptions) -> anyhow::Result<Self> {
        let data = find_data(data.as_deref())?;
        load_shop(client, &data).await?;
        let truth = Arc::new(Truth::read(client, &data).await?);
        Ok(Self { view: client.view(VIEW).await?, truth, options })
    }
}

impl<T: Transport> Service for Ranking<T> {
    async fn call(&self, n: u64) -> Outcome {
        let mut chance = mix(n);
        let request = self.truth.request(
            || {
                chance = mix(chance);
                chance
            },
            PRODUCTS,
        );
        let rows = match request.rows() {
            Ok(rows) => rows,
            Err(error) => return Outcome::Failed(error.to_string()),
        };
        let answer = match self.view.get(&rows, &self.options).await {
            Ok(answer) => answer,
            Err(error) => return Outcome::Failed(error.to_string()),
        };
        if !answer.is_complete() || answer.is_stale() {
            return Outcome::Failed("the answer is not complete".into());
        }
        let checked = n.is_multiple_of(CHECK_EVERY);
        match checked.then(|| self.truth.compare(&request, &answer)) {
            None | Some(Ok((_, 0))) => Outcome::Answered { checked },
            Some(Ok((compared, wrong))) => Outcome::Wrong(format!("request {n}: {wrong} of {compared} values")),
            Some(Err(error)) => Outcome::Wrong(format!("request {n}: {error:#}")),
        }
    }
}
