//! Whatever lies in a configuration file, reading it ends without a panic.

use consort_config::Draft;
use proptest::prelude::*;

/// Pieces that get further into the readers than random bytes do.
const PIECES: [&str; 40] = [
    "name",
    "backend",
    "platform",
    "input",
    "output",
    "dims",
    "data_type",
    "TYPE_FP32",
    "reshape",
    "shape",
    "parameters",
    "key",
    "value",
    "string_value",
    "ensemble_scheduling",
    "step",
    "input_map",
    "output_map",
    "'ensemble'",
    "'x'",
    "\"\\n\\x41\\377\"",
    "0",
    "-1",
    "0x7f",
    "1.5e3",
    "99999999999999999999",
    "true",
    "{",
    "}",
    "[",
    "]",
    "<",
    ">",
    ":",
    ",",
    ";",
    "#",
    "\n",
    "- ",
    "  ",
];

fn read(text: &str) {
    for file in ["config.pbtxt", "config.yaml"] {
        if let Ok(draft) = Draft::parse("m", file, text) {
            drop(draft.check());
        }
    }
}

proptest! {
    #[test]
    fn random_text_never_panics(text in any::<String>()) {
        read(&text);
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        read(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn shuffled_pieces_never_panic(
        pieces in proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..60),
    ) {
        read(&pieces.join(" "));
        read(&pieces.concat());
    }
}
