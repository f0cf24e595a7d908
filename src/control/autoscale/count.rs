//! How many replicas one metric asks for, by what pods use.
//!
//! After `replica_calculator.go` and `metrics/utilization.go` of `pkg/controller/podautoscaler`. Amounts are thousandths.
//! Pods that cannot be measured count so that they never make the change larger: as using all they may when there are to be
//! fewer, nothing when there are to be more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::quantity::Quantity;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use serde_json::Value;

/// For so long after its start the readiness of a pod says whether its processor time counts.
const CPU_INITIALIZATION: SignedDuration = SignedDuration::from_secs(300);
/// Who turns unready later than this after the start has been ready before.
const INITIAL_READINESS: SignedDuration = SignedDuration::from_secs(30);

/// What one pod uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) amount: i64,
    pub(super) at: Timestamp,
    pub(super) window: Duration,
}

pub(super) type Samples = BTreeMap<String, Sample>;

/// What is measured of which pods, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) pods: &'a [&'a Pod],
    pub(super) resource: &'a str,
    /// Of one container alone.
    pub(super) container: Option<&'a str>,
    pub(super) replicas: i32,
    pub(super) tolerance: Tolerance,
    pub(super) now: Timestamp,
}

/// How far from the target nothing is done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tolerance {
    pub(super) up: f64,
    pub(super) down: f64,
}

impl Tolerance {
    fn covers(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// What comes of one metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) replicas: i32,
    /// Of what pods ask for, in percent.
    pub(super) utilization: Option<i32>,
    /// Of one pod on the average.
    pub(super) average: i64,
}

/// Reads what `metrics.k8s.io` says of pods. A pod of which a container is not measured is not measured.
pub(super) fn samples(items: &[Value], resource: &str, container: Option<&str>) -> Result<Samples, String> {
    if items.is_empty() {
        return Err("no metrics returned from resource metrics API".to_owned());
    }
    let mut found = Samples::new();
    for item in items {
        let (name, namespace) = (text(&item["metadata"]["name"]), text(&item["metadata"]["namespace"]));
        let containers = || item["containers"].as_array().into_iter().flatten();
        let wanted = |one: &&Value| container.is_none_or(|name| one["name"] == name);
        if let Some(container) = container.filter(|_| containers().find(wanted).is_none()) {
            return Err(format!("container {container} not present in metrics for pod {namespace}/{name}"));
        }
        let amounts = containers().filter(wanted).map(|one| Quantity::from_value(&one["usage"][resource]).ok());
        let Some(amounts) = amounts.collect::<Option<Vec<_>>>() else { continue };
        let Ok(at) = text(&item["timestamp"]).parse() else { continue };
        let amount = amounts.into_iter().map(Quantity::milli_value).sum();
        let window = duration(text(&item["window"])).unwrap_or_default();
        found.insert(name.to_owned(), Sample { amount, at, window });
    }
    Ok(found)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A duration as Go writes it: `1m2.5s`.
fn duration(text: &str) -> Option<Duration> {
    let (mut sum, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, more) = rest.split_at(digits);
        let unit = more.find(|letter: char| letter.is_ascii_digit()).unwrap_or(more.len());
        let seconds = match &more[..unit] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        sum += Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        rest = &more[unit..];
    }
    Some(sum)
}

/// Pods by what can be said of them.
#[derive(Default)]
struct Groups {
    ready: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
    ignored: BTreeSet<String>,
}

fn groups(subject: Subject<'_>, samples: &Samples) -> Groups {
    let mut groups = Groups::default();
    for pod in subject.pods {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        if pod.metadata.deletion_timestamp.is_some() || phase == "Failed" {
            groups.ignored.insert(name);
        } else if phase == "Pending" {
            groups.unready.insert(name);
        } else if let Some(sample) = samples.get(&name) {
            if subject.resource == "cpu" && is_unready(pod, sample, subject.now) {
                groups.unready.insert(name);
            } else {
                groups.ready += 1;
            }
        } else {
            groups.missing.insert(name);
        }
    }
    groups
}

/// Whether the processor time of a pod tells nothing, as it is still starting.
fn is_unready(pod: &Pod, sample: &Sample, now: Timestamp) -> bool {
    let Some(status) = &pod.status else { return true };
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    let (Some(ready), Some(started)) = (ready, &status.start_time) else { return true };
    let since = ready.last_transition_time.as_ref().map_or(Timestamp::MIN, |time| time.0);
    if started.0 + CPU_INITIALIZATION > now {
        let window = SignedDuration::try_from(sample.window).unwrap_or_default();
        ready.status == "False" || sample.at < since.saturating_add(window).unwrap_or(Timestamp::MAX)
    } else {
        ready.status == "False" && started.0 + INITIAL_READINESS > since
    }
}

/// By the share of what pods ask for that they use.
pub(super) fn by_utilization(subject: Subject<'_>, mut samples: Samples, target: i32) -> Result<Count, String> {
    let groups = sorted(subject, &mut samples)?;
    let requests = requests(subject)?;
    measured(&samples)?;
    let ratio = |samples: &Samples| utilization(samples, &requests, target);
    let (first, percent, average) = ratio(&samples)?;
    let count = |replicas| Count { replicas, utilization: Some(percent), average };
    let fallback = i64::from(target.max(100));
    let full = |name: &String| requests.get(name).copied().unwrap_or(0) * fallback / 100;
    if !settle(subject, &groups, first, &mut samples, full) {
        return Ok(count(unsettled(subject, &groups, first)));
    }
    let (second, ..) = ratio(&samples)?;
    Ok(count(settled(subject, first, second, samples.len())))
}

/// By how much a pod uses on the average.
pub(super) fn by_average(subject: Subject<'_>, mut samples: Samples, target: i64) -> Result<Count, String> {
    let groups = sorted(subject, &mut samples)?;
    measured(&samples)?;
    let (first, average) = mean(&samples, target);
    let count = |replicas| Count { replicas, utilization: None, average };
    if !settle(subject, &groups, first, &mut samples, |_| target) {
        return Ok(count(unsettled(subject, &groups, first)));
    }
    let (second, _) = mean(&samples, target);
    Ok(count(settled(subject, first, second, samples.len())))
}

/// Sorts pods, and forgets what was measured of those that do not count.
fn sorted(subject: Subject<'_>, samples: &mut Samples) -> Result<Groups, String> {
    if subject.pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count".to_owned());
    }
    let groups = groups(subject, samples);
    samples.retain(|name, _| !groups.ignored.contains(name) && !groups.unready.contains(name));
    Ok(groups)
}

fn measured(samples: &Samples) -> Result<(), String> {
    match samples.is_empty() {
        true => Err("did not receive metrics for targeted pods (pods might be unready)".to_owned()),
        false => Ok(()),
    }
}

fn unsettled(subject: Subject<'_>, groups: &Groups, ratio: f64) -> i32 {
    if subject.tolerance.covers(ratio) { subject.replicas } else { ceil(ratio, groups.ready) }
}

/// Assumes something of the pods that cannot be measured; whether there was a need to.
fn settle(
    subject: Subject<'_>,
    groups: &Groups,
    ratio: f64,
    samples: &mut Samples,
    full: impl Fn(&String) -> i64,
) -> bool {
    let grows_with_unready = !groups.unready.is_empty() && ratio > 1.0;
    if !grows_with_unready && groups.missing.is_empty() {
        return false;
    }
    let mut assume = |name: &String, amount| {
        samples.insert(name.clone(), Sample { amount, at: subject.now, window: Duration::ZERO });
    };
    for name in &groups.missing {
        if ratio < 1.0 {
            assume(name, full(name));
        } else if ratio > 1.0 {
            assume(name, 0);
        }
    }
    if grows_with_unready {
        groups.unready.iter().for_each(|name| assume(name, 0));
    }
    true
}

/// What is assumed must not turn the direction.
fn settled(subject: Subject<'_>, first: f64, second: f64, pods: usize) -> i32 {
    let turns = (first < 1.0 && second > 1.0) || (first > 1.0 && second < 1.0);
    if subject.tolerance.covers(second) || turns {
        return subject.replicas;
    }
    let replicas = ceil(second, pods);
    let turns = (second < 1.0 && replicas > subject.replicas) || (second > 1.0 && replicas < subject.replicas);
    if turns { subject.replicas } else { replicas }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "the cast saturates, pods are few")]
fn ceil(ratio: f64, pods: usize) -> i32 {
    (ratio * pods as f64).ceil() as i32
}

/// How the use of all is to the target, in percent of what they ask for, and of one on the average.
fn utilization(samples: &Samples, requests: &BTreeMap<String, i64>, target: i32) -> Result<(f64, i32, i64), String> {
    let known = samples.iter().filter_map(|(name, sample)| Some((sample.amount, requests.get(name)?)));
    let (mut used, mut asked, mut pods) = (0_i64, 0_i64, 0_i64);
    for (amount, request) in known {
        used = used.saturating_add(amount);
        asked = asked.saturating_add(*request);
        pods += 1;
    }
    if asked == 0 {
        return Err("no metrics returned matched known pods".to_owned());
    }
    let percent = i32::try_from(i128::from(used) * 100 / i128::from(asked)).unwrap_or(i32::MAX);
    Ok((f64::from(percent) / f64::from(target), percent, used / pods))
}

#[expect(clippy::cast_precision_loss, reason = "a ratio, of which the first digits count")]
fn mean(samples: &Samples, target: i64) -> (f64, i64) {
    let sum = samples.values().fold(0_i64, |sum, sample| sum.saturating_add(sample.amount));
    let average = sum / i64::try_from(samples.len()).unwrap_or(i64::MAX).max(1);
    (average as f64 / target as f64, average)
}

/// What each pod asks for: of itself where it says so, else its containers that run all the time.
fn requests(subject: Subject<'_>) -> Result<BTreeMap<String, i64>, String> {
    let of = |pod: &&Pod| Ok((pod.metadata.name.clone().unwrap_or_default(), request(pod, subject)?));
    subject.pods.iter().map(of).collect()
}

fn request(pod: &Pod, subject: Subject<'_>) -> Result<i64, String> {
    let Some(spec) = &pod.spec else { return Ok(0) };
    let own = asked(spec.resources.as_ref(), subject.resource).filter(|_| subject.container.is_none());
    if let Some(own) = own {
        return Ok(own);
    }
    let lasts = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(lasts);
    let all = spec.containers.iter().chain(sidecars);
    let mut sum = 0_i64;
    for container in all.filter(|container| subject.container.is_none_or(|name| container.name == name)) {
        let amount = asked(container.resources.as_ref(), subject.resource).ok_or_else(|| {
            let (pod, resource) = (pod.metadata.name.as_deref().unwrap_or_default(), subject.resource);
            format!("missing request for {resource} in container {} of Pod {pod}", container.name)
        })?;
        sum = sum.saturating_add(amount);
    }
    Ok(sum)
}

fn asked(resources: Option<&ResourceRequirements>, resource: &str) -> Option<i64> {
    let Text(amount) = resources?.requests.as_ref()?.get(resource)?;
    Quantity::parse(amount).ok().map(Quantity::milli_value)
}
