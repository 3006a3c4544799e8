# `just` lists these. Everything is built with the one release profile.

default:
    @just --list

# Format, lints, build, tests, docs: what must hold before a change is merged
check:
    .ci/run

# Write text with the built-in model
run *ARGS:
    cargo run --release -- {{ARGS}}

# Unit tests, laws, oracle, command line
test *ARGS:
    cargo test --release {{ARGS}}

# Compare with the numbers of the official code in another folder
oracle DIR:
    BD3_ORACLE={{DIR}} cargo test --release oracle

# Apply the formatter
fmt:
    cargo fmt

# The library's documentation
doc:
    cargo doc --release --no-deps --open
