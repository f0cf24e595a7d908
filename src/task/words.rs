//! Errors in words, for a user who sees one line. Called by whoever stops an error on its way; nothing here decides.

use std::error::Error;
use std::io;

/// An error with all its sources. One that repeats its source at its end is not repeated.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// An error of the operating system in the words of Go's `syscall.Errno`, which users know and search for.
pub fn errno_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Failed(&'static str, Option<io::Error>);

    impl std::fmt::Display for Failed {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Failed {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_ref().map(|error| error as _)
        }
    }

    #[test]
    fn all_causes_are_told_and_each_once() {
        let told = |text, cause| chain(&Failed(text, Some(io::Error::other(cause))));
        assert_eq!(told("cannot pull", "refused"), "cannot pull: refused");
        assert_eq!(told("cannot pull: refused", "refused"), "cannot pull: refused");
        assert_eq!(chain(&Failed("alone", None)), "alone");
    }

    #[test]
    fn what_the_kernel_says_has_neither_number_nor_capital() {
        assert_eq!(errno_text(&io::Error::from_raw_os_error(2)), "no such file or directory");
    }
}
