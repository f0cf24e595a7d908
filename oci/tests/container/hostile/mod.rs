//! Attacks of an image, of a volume's other users and of what runs inside, each on the real kernel.
//!
//! The list of attacks, with what is done against each, is in the documentation of `oci::container`. Every test here
//! fails if that answer is taken out of the code.

mod descriptors;
mod init;
mod masks;
mod paths;
mod privileges;
mod program;
mod race;
