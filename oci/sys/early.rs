//! Becoming another program before this one has begun.
//!
//! What a program does before its `main` (the standard library examines its stack, its standard streams and signals) and
//! the pages of it that this touches are a fifth of the time and half of the memory of a command that only hands over to
//! another program. glibc calls the functions of `.init_array` with what `main` would get (its csu/libc-start.c), which
//! the standard library itself relies on.

use std::ffi::{CStr, c_char, c_int};
use std::os::fd::AsFd as _;

use super::exec::execute_raw;
use crate::container::sealed;

/// When to become which program.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// This program was called by this name, or with `word` as its first argument.
    pub name: &'static CStr,
    /// The first argument, which the other program does not get.
    pub word: &'static CStr,
    /// The other program. If it cannot be executed, this one begins as usual.
    pub program: &'static CStr,
}

/// Lets this program become another one before it begins; see [`Rule`].
#[macro_export]
macro_rules! become_early {
    ($rule:expr) => {
        const _: () = {
            extern "C" fn early(
                count: std::ffi::c_int,
                arguments: *mut *const std::ffi::c_char,
                environment: *const *const std::ffi::c_char,
            ) {
                // SAFETY: glibc calls this once, before there are other threads, with what main would get.
                #[expect(unsafe_code, reason = "the caller of functions in .init_array is the C library")]
                unsafe {
                    $crate::sys::early::apply(&$rule, count, arguments, environment);
                }
            }

            #[used]
            #[expect(unsafe_code, reason = "the C library finds its functions by the name of their section")]
            #[unsafe(link_section = ".init_array")]
            static EARLY: extern "C" fn(std::ffi::c_int, *mut *const std::ffi::c_char, *const *const std::ffi::c_char) =
                early;
        };
    };
}

/// Applies a rule. Neither allocates nor locks, and uses nothing that the standard library prepares.
///
/// # Safety
/// `arguments` points to `count` strings and a null, as does `environment` to any number of them; nobody else uses them
/// meanwhile.
pub unsafe fn apply(rule: &Rule, count: c_int, arguments: *mut *const c_char, environment: *const *const c_char) {
    let count = usize::try_from(count).unwrap_or_default();
    // SAFETY: the caller promises that there are as many strings.
    let argument = |at: usize| (at < count).then(|| unsafe { CStr::from_ptr(*arguments.add(at)) });
    let Some(name) = argument(0) else { return };
    let base = name.to_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let first = if base == rule.name.to_bytes() {
        0
    } else if argument(1) == Some(rule.word) {
        1
    } else {
        return;
    };
    let Ok(program) = sealed::clone_program(rule.program) else { return };
    // SAFETY: `first` is below `count`. The vector is the process's own and may be written to (C11 5.1.2.2.1); it is as
    // before when this returns. Both vectors end with a null.
    unsafe {
        let first = arguments.add(first);
        let former = first.replace(rule.name.as_ptr());
        execute_raw(program.as_fd(), first, environment);
        first.write(former);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_called_otherwise_or_has_no_such_program_goes_on_with_the_arguments_as_they_were() {
        let rule = Rule { name: c"other", word: c"word", program: c"/nonexistent/program" };
        for words in [&[c"/bin/other", c"a"][..], &[c"/bin/this", c"word"], &[c"/bin/this"], &[]] {
            let mut arguments: Vec<*const c_char> = words.iter().map(|word| word.as_ptr()).collect();
            arguments.push(std::ptr::null());
            let before = arguments.clone();
            let count = c_int::try_from(words.len()).unwrap();
            // SAFETY: both vectors are as the function wants them.
            unsafe { apply(&rule, count, arguments.as_mut_ptr(), [std::ptr::null()].as_ptr()) };
            assert_eq!(arguments, before);
        }
    }
}
