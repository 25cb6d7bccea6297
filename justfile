# The one interface for whoever works here. Each recipe is plain commands, which the README shows too.

# Lists the recipes.
default:
    @just --list

# What must hold of the text of the code.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# Puts right what tools can put right.
fix:
    cargo fmt --all
    cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged

# All tests.
test:
    cargo test --workspace

# One run of the whole cluster under a seed.
sim SEED:
    cargo run --release -p stoa-sim -- run {{SEED}}

# What one partition in memory costs.
bench:
    cargo run --release -p stoa-bench -- store

# All figures beside their bars, with Redis in the same run. 25 minutes.
bars:
    cargo run --release -p stoa-bench -- bars --json bars.json

# What the hot parts cost in instructions, beside the committed baseline. Needs valgrind.
count:
    cargo run --release -p stoa-bench -- micro count

# The main job.
demo:
    cargo run --release -- demo

# What must hold before a change lands.
ci:
    .ci/run
