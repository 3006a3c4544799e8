//! The binary `bd3`: parses the command line, runs one command, and prints an error in one place. Results go to stdout,
//! everything else to stderr.

mod view;

fn main() {
    let _ = view::View::of_stdout();
}
