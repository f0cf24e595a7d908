//! Thresholds as an administrator writes them, in upstream's forms (`ParseThresholdConfig` of `pkg/kubelet/eviction`): pure.

use std::str::FromStr;
use std::time::Duration;

use super::threshold::{Least, Signal, Threshold, ThresholdError};

/// What is said of thresholds; each in parts that commas may join.
#[derive(Debug, Clone, Copy, Default)]
pub struct EvictionTexts<'a> {
    /// `memory.available<100Mi`: below that a pod is ended at once. None for what is usual.
    pub hard: &'a [String],
    /// `memory.available<300Mi`: below that for some time a pod is ended in its own time.
    pub soft: &'a [String],
    /// `memory.available=1m30s`: for how long, for each of these.
    pub soft_grace: &'a [String],
    /// `nodefs.available=500Mi`: how much beyond a threshold is to be had before nobody else is ended.
    pub minimum_reclaim: &'a [String],
}

fn parts(texts: &[String]) -> impl Iterator<Item = &str> {
    texts.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|text| !text.is_empty())
}

/// `signal=value`, each signal once.
fn named<T>(texts: &[String], value: impl Fn(&str) -> Option<T>) -> Result<Vec<(Signal, T)>, ThresholdError> {
    let mut all: Vec<(Signal, T)> = Vec::new();
    for text in parts(texts) {
        let wrong = || ThresholdError::Setting { text: text.to_owned() };
        let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
        let signal = Signal::named(name).ok_or_else(wrong)?;
        if all.iter().any(|(other, _)| *other == signal) {
            return Err(ThresholdError::Twice { text: text.to_owned() });
        }
        all.push((signal, value(rest).ok_or_else(wrong)?));
    }
    Ok(all)
}

impl EvictionTexts<'_> {
    /// All thresholds.
    ///
    /// # Errors
    /// If one makes no sense, or a soft one has no grace period.
    pub fn thresholds(&self) -> Result<Vec<Threshold>, ThresholdError> {
        let mut all = match self.hard {
            [] => Threshold::usual(),
            said => parts(said).map(Threshold::from_str).collect::<Result<_, _>>()?,
        };
        let graces = named(self.soft_grace, duration)?;
        for text in parts(self.soft) {
            let mut soft: Threshold = text.parse()?;
            let grace = graces.iter().find(|(signal, _)| *signal == soft.signal);
            let (_, grace) = grace.ok_or_else(|| ThresholdError::NoGrace { text: text.to_owned() })?;
            soft.grace = Some(*grace);
            all.push(soft);
        }
        let reclaims = named(self.minimum_reclaim, Least::parse)?;
        for threshold in &mut all {
            threshold.reclaim =
                reclaims.iter().find(|(signal, _)| *signal == threshold.signal).map(|(_, least)| *least);
        }
        Ok(all)
    }
}

/// A duration as Go writes it, in hours, minutes, and seconds: `1m30s`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit())?;
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        let unit = match rest.as_bytes().get(digits)? {
            b'h' => 3600,
            b'm' => 60,
            b's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(number.checked_mul(unit)?)?;
        rest = rest.get(digits + 1..)?;
    }
    (!text.is_empty()).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn soft_thresholds_have_a_grace_period_and_all_may_have_a_reclaim() {
        let (hard, soft) = (words(&["memory.available<100Mi,nodefs.available<5%"]), words(&["memory.available<300Mi"]));
        let (soft_grace, minimum_reclaim) = (words(&["memory.available=1m30s"]), words(&["memory.available=50Mi"]));
        let texts =
            EvictionTexts { hard: &hard, soft: &soft, soft_grace: &soft_grace, minimum_reclaim: &minimum_reclaim };
        let all = texts.thresholds().unwrap();
        let facts = all.iter().map(|one| (one.signal, one.grace.map(|grace| grace.as_secs()), one.reclaim.is_some()));
        let memory = Signal::MemoryAvailable;
        assert_eq!(
            facts.collect::<Vec<_>>(),
            [(memory, None, true), (Signal::NodefsAvailable, None, false), (memory, Some(90), true)]
        );
        let without = EvictionTexts { soft_grace: &[], ..texts }.thresholds();
        assert_eq!(
            without.unwrap_err().to_string(),
            "grace period must be specified for the soft eviction threshold memory.available<300Mi"
        );
    }

    #[test]
    fn nothing_said_is_what_is_usual_and_an_empty_word_is_nothing() {
        assert_eq!(EvictionTexts::default().thresholds(), Ok(Threshold::usual()));
        assert_eq!(EvictionTexts { hard: &words(&[""]), ..EvictionTexts::default() }.thresholds(), Ok(Vec::new()));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in ["memory=1m", "memory.available", "memory.available=1", "memory.available=x", "memory.available="]
        {
            let texts = words(&[wrong]);
            assert!(EvictionTexts { soft_grace: &texts, ..EvictionTexts::default() }.thresholds().is_err(), "{wrong}");
        }
        let twice = words(&["memory.available=1m,memory.available=2m"]);
        assert!(EvictionTexts { soft_grace: &twice, ..EvictionTexts::default() }.thresholds().is_err());
        let times = ["90s", "1m30s", "2h", "0s"].map(|text| duration(text).map(|time| time.as_secs()));
        assert_eq!(times, [Some(90), Some(90), Some(7200), Some(0)]);
    }
}
