//! The text format of Prometheus: one family after another, each with its help and type.

use std::fmt::Write as _;

use jiff::Timestamp;

/// A document being written.
#[derive(Debug, Default)]
pub(super) struct Exposition(String);

impl Exposition {
    /// A family; nothing of it is written if it has no samples.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str, samples: Vec<Sample>) {
        if samples.is_empty() {
            return;
        }
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for Sample { suffix, labels, value, at } in samples {
            let _ = write!(self.0, "{name}{suffix}");
            let mut separator = '{';
            for (label, value) in &labels {
                let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                let _ = write!(self.0, "{separator}{label}=\"{value}\"");
                separator = ',';
            }
            let end = if labels.is_empty() { "" } else { "}" };
            let _ = write!(self.0, "{end} {value}");
            if let Some(at) = at {
                let _ = write!(self.0, " {}", at.as_millisecond());
            }
            self.0.push('\n');
        }
    }

    /// All of it.
    pub(super) fn finish(self) -> String {
        self.0
    }
}

/// One value.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) suffix: &'static str,
    pub(super) labels: Vec<(&'static str, String)>,
    /// As it is written.
    pub(super) value: String,
    pub(super) at: Option<Timestamp>,
}

impl Sample {
    /// A whole number.
    pub(super) fn count(labels: &[(&'static str, &str)], value: u64) -> Self {
        Self::new(labels, value.to_string())
    }

    /// Nanoseconds, shown as seconds.
    pub(super) fn seconds(labels: &[(&'static str, &str)], nanos: u64) -> Self {
        Self::new(labels, seconds(nanos))
    }

    fn new(labels: &[(&'static str, &str)], value: String) -> Self {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self { suffix: "", labels, value, at: None }
    }

    /// The same with the time of the measurement.
    pub(super) fn at(self, at: Timestamp) -> Self {
        Self { at: Some(at), ..self }
    }
}

/// Nanoseconds as seconds, exactly.
pub(super) fn seconds(nanos: u64) -> String {
    let (whole, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    if rest == 0 {
        return whole.to_string();
    }
    format!("{whole}.{rest:09}").trim_end_matches('0').to_owned()
}

/// A moment in seconds, exactly.
pub(super) fn moment(at: Timestamp) -> String {
    seconds(u64::try_from(at.as_nanosecond()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_exact_and_labels_escaped() {
        let mut document = Exposition::default();
        document.family("empty", "gauge", "Nothing.", Vec::new());
        let at = Timestamp::from_millisecond(1500).unwrap();
        let samples =
            vec![Sample::seconds(&[("a", "x\"\\\n"), ("b", "")], 1_500_000_001).at(at), Sample::count(&[], 7)];
        document.family("used", "counter", "What was used.", samples);
        let wanted = "# HELP used What was used.\n# TYPE used counter\nused{a=\"x\\\"\\\\\\n\",b=\"\"} 1.500000001 1500\nused 7\n";
        assert_eq!(document.finish(), wanted);
        assert_eq!(
            (seconds(0), seconds(1_500_000_000), seconds(2_000_000_000)),
            ("0".into(), "1.5".into(), "2".into())
        );
    }
}
