//! Writes the inputs to begin with below `corpus/`, made by the encoders of the product.

use std::path::Path;

use stoa_fuzz::TARGETS;

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for target in TARGETS {
        let dir = corpus.join(target.name);
        std::fs::create_dir_all(&dir)?;
        for (name, bytes) in (target.seeds)() {
            std::fs::write(dir.join(name), bytes)?;
        }
    }
    Ok(())
}
