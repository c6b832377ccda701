//! Panics of actors: caught only to be told with their cause; then they go on as they were.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Runs this, and returns what it panicked of. Whatever it worked on is not to be used any more then.
pub(crate) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(run))
}

/// What a panic said.
pub(crate) fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&'static str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("something that is no text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_says_why() {
        assert_eq!(caught(|| 1).unwrap(), 1);
        let said = |run: fn()| text(&*caught(run).unwrap_err()).to_owned();
        assert_eq!(said(|| panic!("a planted panic")), "a planted panic");
        assert_eq!(said(|| panic!("{} planted panics", 2)), "2 planted panics");
        assert_eq!(said(|| std::panic::panic_any(3)), "something that is no text");
    }
}
