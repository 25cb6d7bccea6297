//! (in the making)
/// x
#[derive(Debug, clap::Args)]
pub struct DemoCommand {}
impl DemoCommand {
    /// x
    pub async fn run(self) -> anyhow::Result<u8> {
        Ok(0)
    }
}
