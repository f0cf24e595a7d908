//! What the built-in types and their fields are for.
//!
//! The text is part of the program in packed form and unpacked for as long as somebody renders documents with it.

use std::collections::HashMap;
use std::io::Read as _;

use flate2::read::ZlibDecoder;

use super::TypeRef;

static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.zz"));

/// The descriptions, unpacked.
pub(crate) struct Descriptions(String);

/// An index over the descriptions.
pub(crate) struct Described<'a>(HashMap<(&'a str, &'a str), &'a str>);

impl Descriptions {
    /// Unpacks them.
    pub(crate) fn unpack() -> Self {
        let mut text = String::new();
        // The build packed it.
        ZlibDecoder::new(PACKED).read_to_string(&mut text).expect("the text was packed whole");
        Self(text)
    }

    /// The index over them.
    pub(crate) fn index(&self) -> Described<'_> {
        let mut index = HashMap::new();
        let mut current = "";
        for line in self.0.lines() {
            if let Some(rest) = line.strip_prefix("T ") {
                let (name, about) = rest.split_once(' ').unwrap_or((rest, ""));
                current = name;
                index.insert((current, ""), about);
            } else if let Some((field, about)) = line.split_once(' ') {
                index.insert((current, field), about);
            }
        }
        Described(index)
    }
}

impl Described<'_> {
    /// What a type is for.
    pub(crate) fn of(&self, ty: TypeRef) -> Option<String> {
        self.get(ty, "")
    }

    /// What a field is for.
    pub(crate) fn of_field(&self, ty: TypeRef, field: &str) -> Option<String> {
        self.get(ty, field)
    }

    fn get(&self, ty: TypeRef, field: &str) -> Option<String> {
        let about = self.0.get(&(ty.name(), field)).filter(|about| !about.is_empty())?;
        Some(about.replace("\\n", "\n"))
    }
}
