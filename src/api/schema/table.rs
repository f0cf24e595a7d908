//! The table itself: parsed once, on first use, from the text that the generator wrote and the little that is written by
//! hand (`extensions.txt`).
//!
//! Names are borrowed from that text, which is part of the program, so the parsed form is only the index over it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::LazyLock;

static TEXT: &str = concat!(include_str!("types.txt"), include_str!("extensions.txt"));
static TABLE: LazyLock<Table> = LazyLock::new(|| Table::parse(TEXT));

/// A type in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeRef(u16);

/// What a single value of a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// Text.
    String,
    /// Truth.
    Bool,
    /// 32-bit integer.
    Int32,
    /// 64-bit integer.
    Int64,
    /// Floating-point number.
    Double,
    /// Bytes, base64 in JSON.
    Bytes,
    /// `resource.Quantity`.
    Quantity,
    /// `metav1.Time`.
    Time,
    /// `metav1.MicroTime`.
    MicroTime,
    /// `metav1.Duration`.
    Duration,
    /// `intstr.IntOrString`.
    IntOrString,
    /// Any object, kept as it is.
    Raw,
    /// Managed fields, kept as they are.
    FieldsV1,
    /// A type of the table.
    Type(TypeRef),
}

/// How many values a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One.
    One,
    /// A list.
    List,
    /// A map from strings.
    Map,
    /// A map from strings to lists, which protobuf wraps in messages (`ExtraValue`).
    MapOfLists,
}

/// `x-kubernetes-list-type`, also for maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListType {
    /// Nothing is said.
    Unset,
    /// Replaced as a whole.
    Atomic,
    /// A set of scalars.
    Set,
    /// Items are identified by the map keys.
    Map,
}

/// A field of a type.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// JSON name.
    pub name: &'static str,
    /// How many values.
    pub shape: Shape,
    /// What each value is.
    pub base: Base,
    /// Protobuf numbers from the outermost message in, zero for none; several where upstream embeds a struct.
    pub numbers: [u8; 3],
    /// Whether absent and zero differ.
    pub pointer: bool,
    /// Whether it is written even when empty.
    pub always: bool,
    /// Whether a client must give it.
    pub required: bool,
    /// List type.
    pub list_type: ListType,
    keys: &'static str,
    /// Patch strategy: `merge`, `retainKeys`, both joined by a comma, `replace`, or nothing.
    pub patch_strategy: &'static str,
    /// Key of list items for `merge`; nothing for lists of scalars.
    pub merge_key: &'static str,
}

impl Field {
    /// Keys of a list of type `Map`.
    pub fn map_keys(&self) -> impl Iterator<Item = &'static str> {
        self.keys.split(',').filter(|key| !key.is_empty())
    }

    /// Whether the patch strategy contains a word.
    pub fn has_strategy(&self, word: &str) -> bool {
        self.patch_strategy.split(',').any(|own| own == word)
    }
}

struct Type {
    name: &'static str,
    fields: Range<usize>,
    atomic: bool,
}

struct Table {
    kinds: Vec<(&'static str, &'static str, &'static str, TypeRef)>,
    types: Vec<Type>,
    fields: Vec<Field>,
}

/// The type of a kind; `group` is empty for core. `DeleteOptions` and `Status` exist in every group version.
pub fn lookup(group: &str, version: &str, kind: &str) -> Option<TypeRef> {
    let find = |wanted: (&str, &str, &str)| {
        let found = TABLE.kinds.binary_search_by(|(g, v, k, _)| (*g, *v, *k).cmp(&wanted)).ok()?;
        Some(TABLE.kinds[found].3)
    };
    find((group, version, kind)).or_else(|| find(("meta.k8s.io", "v1", kind)))
}

/// All kinds: group, version, kind, type.
pub fn kinds() -> impl Iterator<Item = (&'static str, &'static str, &'static str, TypeRef)> {
    TABLE.kinds.iter().copied()
}

/// A number that changes when the table changes.
pub(crate) fn fingerprint() -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    static FINGERPRINT: LazyLock<u64> = LazyLock::new(|| {
        let mut hasher = DefaultHasher::new();
        TEXT.hash(&mut hasher);
        hasher.finish()
    });
    *FINGERPRINT
}

/// Bytes of memory that the parsed table takes.
#[cfg(test)]
pub(super) fn footprint() -> usize {
    TABLE.fields.capacity() * size_of::<Field>()
        + TABLE.types.capacity() * size_of::<Type>()
        + TABLE.kinds.capacity() * size_of::<(&str, &str, &str, TypeRef)>()
}

impl TypeRef {
    fn info(self) -> &'static Type {
        &TABLE.types[usize::from(self.0)]
    }

    /// Name as `group/version/Type`, with the short group of upstream's packages.
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// Name within its package.
    pub fn short_name(self) -> &'static str {
        self.name().rsplit('/').next().unwrap_or_default()
    }

    /// Whether server-side apply replaces it as a whole.
    pub fn is_atomic(self) -> bool {
        self.info().atomic
    }

    /// All fields, by name.
    pub fn fields(self) -> &'static [Field] {
        &TABLE.fields[self.info().fields.clone()]
    }

    /// A field by its JSON name.
    pub fn field(self, name: &str) -> Option<&'static Field> {
        let fields = self.fields();
        fields.binary_search_by(|field| field.name.cmp(name)).ok().map(|index| &fields[index])
    }
}

impl Table {
    /// Reads the generated text; the program was built with it, so its form is an invariant.
    fn parse(text: &'static str) -> Self {
        let mut names = HashMap::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("T ")) {
            let index = u16::try_from(names.len()).expect("the generator writes fewer than 65536 types");
            names.insert(line.split(' ').next().unwrap_or_default(), TypeRef(index));
        }
        let mut table = Self { kinds: Vec::new(), types: Vec::with_capacity(names.len()), fields: Vec::new() };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.split(' ');
            match words.next() {
                Some("K") => {
                    let mut word = || words.next().expect("a kind has four words");
                    let (group, version, kind, name) = (word(), word(), word(), word());
                    let group = if group == "core" { "" } else { group };
                    table.kinds.push((group, version, kind, names[name]));
                }
                Some("T") => {
                    let start = table.fields.len();
                    let name = words.next().expect("a type has a name");
                    table.types.push(Type { name, fields: start..start, atomic: words.next().is_some() });
                }
                Some(name) => {
                    table.fields.push(parse_field(name, words, &names));
                    if let Some(last) = table.types.last_mut() {
                        last.fields.end = table.fields.len();
                    }
                }
                None => {}
            }
        }
        table.kinds.sort_unstable();
        table.fields.shrink_to_fit();
        table
    }
}

fn parse_field(
    name: &'static str,
    mut words: impl Iterator<Item = &'static str>,
    names: &HashMap<&str, TypeRef>,
) -> Field {
    let (shape, base) = parse_kind(words.next().expect("a field has a kind"), names);
    let mut numbers = [0; 3];
    for (slot, number) in numbers.iter_mut().zip(words.next().expect("a field has numbers").split('/')) {
        *slot = number.parse().expect("a protobuf number fits a byte");
    }
    let mut field = Field {
        name,
        shape,
        base,
        numbers,
        pointer: false,
        always: false,
        required: false,
        list_type: ListType::Unset,
        keys: "",
        patch_strategy: "",
        merge_key: "",
    };
    for word in words {
        match word {
            "*" => field.pointer = true,
            "!" => (field.always, field.required) = (true, true),
            "?" => field.required = false,
            _ => parse_marker(word, &mut field),
        }
    }
    field
}

fn parse_marker(word: &'static str, field: &mut Field) {
    let (what, detail) = word.split_once(':').unwrap_or((word, ""));
    match what {
        "L=atomic" => field.list_type = ListType::Atomic,
        "L=set" => field.list_type = ListType::Set,
        "L=map" => (field.list_type, field.keys) = (ListType::Map, detail),
        _ => {
            field.patch_strategy = what.strip_prefix("P=").expect("the generator writes no other markers");
            field.merge_key = detail;
        }
    }
}

fn parse_kind(text: &'static str, names: &HashMap<&str, TypeRef>) -> (Shape, Base) {
    let (shape, base) = if let Some(base) = text.strip_prefix("{}[+]") {
        (Shape::MapOfLists, base)
    } else if let Some(base) = text.strip_prefix("{}") {
        (Shape::Map, base)
    } else if let Some(base) = text.strip_prefix("[]") {
        (Shape::List, base)
    } else {
        (Shape::One, text)
    };
    let base = match base {
        "s" => Base::String,
        "b" => Base::Bool,
        "i" => Base::Int32,
        "l" => Base::Int64,
        "d" => Base::Double,
        "y" => Base::Bytes,
        "q" => Base::Quantity,
        "t" => Base::Time,
        "u" => Base::MicroTime,
        "D" => Base::Duration,
        "o" => Base::IntOrString,
        "R" => Base::Raw,
        "F" => Base::FieldsV1,
        name => Base::Type(names[name.strip_prefix('&').expect("the generator writes no other kinds")]),
    };
    (shape, base)
}
