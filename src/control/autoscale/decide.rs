//! What a HorizontalPodAutoscaler does next, as data.
//!
//! After `reconcileAutoscaler` of `horizontal.go`, with its reasons and messages.

use std::sync::Arc;

use api::quantity::Quantity;
use client::events::EventType;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, MetricSpec, MetricTarget,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use serde_json::{Value, json};

use super::count::{self, Count, Samples, Subject, Tolerance};
use super::pace::{Bounds, History};

/// How far from the target nothing is done (`--horizontal-pod-autoscaler-tolerance`).
const TOLERANCE: f64 = 0.1;
const ABLE: &str = "AbleToScale";
const ACTIVE: &str = "ScalingActive";
const LIMITED: &str = "ScalingLimited";

/// What is known of the target.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) replicas: i32,
    /// Its pods; else which event says why they cannot be known, and why.
    pub(super) pods: Result<Vec<Arc<Pod>>, NoPods>,
    /// What `metrics.k8s.io` says of them, else why it says nothing.
    pub(super) metrics: Result<Vec<Value>, String>,
}

/// Why the pods of a target are not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoPods {
    pub(super) event: &'static str,
    pub(super) reason: &'static str,
    pub(super) text: String,
    /// What the condition says, if something else.
    pub(super) message: Option<&'static str>,
}

/// Something that people are told.
pub(super) type Told = (EventType, &'static str, String);

/// What is decided.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// The number of replicas that the target is to get, if another, and why.
    pub(super) change: Option<(i32, String)>,
    pub(super) status: Status,
    pub(super) events: Vec<Told>,
}

/// A status in the making.
#[derive(Debug, Clone, Default)]
pub(super) struct Status {
    pub(super) conditions: Vec<HorizontalPodAutoscalerCondition>,
    pub(super) current: i32,
    pub(super) desired: i32,
    pub(super) metrics: Value,
    pub(super) scaled_at: Option<Time>,
}

impl Status {
    /// The one that a scaler has.
    pub(super) fn of(scaler: &HorizontalPodAutoscaler) -> Self {
        let status = scaler.status.clone().unwrap_or_default();
        Self {
            conditions: status.conditions.unwrap_or_default(),
            current: status.current_replicas.unwrap_or(0),
            desired: status.desired_replicas,
            metrics: status.current_metrics.map_or(Value::Null, |metrics| json!(metrics)),
            scaled_at: status.last_scale_time,
        }
    }

    /// Sets a condition; its time is that of when it last held or ceased to.
    pub(super) fn set(&mut self, kind: &str, holds: bool, (reason, message): (&str, &str), now: Timestamp) {
        let status = if holds { "True" } else { "False" };
        let known = self.conditions.iter().position(|condition| condition.type_ == kind);
        let at = known.unwrap_or_else(|| {
            let (type_, status) = (kind.to_owned(), String::new());
            self.conditions.push(HorizontalPodAutoscalerCondition { type_, status, ..Default::default() });
            self.conditions.len() - 1
        });
        let condition = &mut self.conditions[at];
        if condition.status != status {
            status.clone_into(&mut condition.status);
            condition.last_transition_time = Some(Time(now));
        }
        condition.reason = Some(reason.to_owned());
        condition.message = Some(message.to_owned());
    }

    /// As it is written.
    pub(super) fn value(&self) -> Value {
        json!({
            "conditions": self.conditions, "currentReplicas": self.current, "desiredReplicas": self.desired,
            "currentMetrics": self.metrics, "lastScaleTime": self.scaled_at,
        })
    }
}

/// What to say when the scale of the target cannot be had.
pub(super) fn no_scale(scaler: &HorizontalPodAutoscaler, error: &str, now: Timestamp) -> Verdict {
    let mut status = Status::of(scaler);
    let message = format!("the HPA controller was unable to get the target's current scale: {error}");
    status.set(ABLE, false, ("FailedGetScale", &message), now);
    let events = vec![(EventType::Warning, "FailedGetScale", error.to_owned())];
    Verdict { change: None, status, events }
}

/// Takes in how changing the scale went.
pub(super) fn changed(verdict: &mut Verdict, result: Result<(), String>, now: Timestamp) {
    let Some((replicas, reason)) = verdict.change.clone() else { return };
    match result {
        Ok(()) => {
            let message = format!("the HPA controller was able to update the target scale to {replicas}");
            verdict.status.set(ABLE, true, ("SucceededRescale", &message), now);
            verdict.status.desired = replicas;
            verdict.status.scaled_at = Some(Time(now));
            let text = format!("New size: {replicas}; reason: {reason}");
            verdict.events.push((EventType::Normal, "SuccessfulRescale", text));
        }
        Err(error) => {
            let message = format!("the HPA controller was unable to update the target scale: {error}");
            verdict.status.set(ABLE, false, ("FailedUpdateScale", &message), now);
            let text = format!("New size: {replicas}; reason: {reason}; error: {error}");
            verdict.events.push((EventType::Warning, "FailedRescale", text));
        }
    }
}

/// Decides for a scaler whose target is known.
pub(super) fn decide(
    scaler: &HorizontalPodAutoscaler,
    target: &Target,
    history: &mut History,
    now: Timestamp,
) -> Verdict {
    let current = target.replicas;
    let mut verdict = Verdict { status: Status::of(scaler), ..Verdict::default() };
    let scaled = ("SucceededGetScale", "the HPA controller was able to get the target's current scale");
    verdict.status.set(ABLE, true, scaled, now);
    verdict.status.current = current;
    history.begin(current, now);
    let (min, max) = (scaler.spec.min_replicas.unwrap_or(1), scaler.spec.max_replicas);
    let change = if current == 0 && min != 0 {
        let says = ("ScalingDisabled", "scaling is disabled since the replica count of the target is zero");
        verdict.status.set(ACTIVE, false, says, now);
        verdict.status.metrics = Value::Null;
        None
    } else if current > max {
        verdict.status.metrics = Value::Null;
        Some((max, "Current number of replicas above Spec.MaxReplicas".to_owned()))
    } else if current < min {
        verdict.status.metrics = Value::Null;
        Some((min, "Current number of replicas below Spec.MinReplicas".to_owned()))
    } else {
        let Some((wanted, metric)) = by_metrics(scaler, target, &mut verdict, now) else { return verdict };
        let paced = history.pace(scaler.spec.behavior.as_ref(), Bounds { min, max, current }, wanted, now);
        verdict.status.set(ABLE, true, paced.able, now);
        verdict.status.set(LIMITED, paced.is_limited, paced.limit, now);
        let reason = match wanted.cmp(&current) {
            std::cmp::Ordering::Greater => format!("{metric} above target"),
            std::cmp::Ordering::Less => "All metrics below target".to_owned(),
            std::cmp::Ordering::Equal => String::new(),
        };
        (paced.replicas != current).then_some((paced.replicas, reason))
    };
    if change.is_none() {
        verdict.status.desired = current;
    }
    verdict.change = change;
    verdict
}

/// Why a metric says nothing: what the event and the condition are called, what they say, and what is said of all.
struct Failure {
    reason: &'static str,
    error: String,
    whole: String,
}

/// What one metric says: how many replicas, what it is called, and what is shown of it.
struct Proposal {
    replicas: i32,
    name: String,
    shown: Value,
}

/// The highest number that a metric asks for, and which does; none if nothing is to be done, as some cannot be had.
fn by_metrics(
    scaler: &HorizontalPodAutoscaler,
    target: &Target,
    verdict: &mut Verdict,
    now: Timestamp,
) -> Option<(i32, String)> {
    let failed = |verdict: &mut Verdict, text: String| {
        verdict.events.push((EventType::Warning, "FailedComputeMetricsReplicas", text));
    };
    let pods = match &target.pods {
        Ok(pods) => pods,
        Err(NoPods { event, reason, text, message }) => {
            verdict.status.metrics = Value::Null;
            verdict.events.push((EventType::Warning, event, text.clone()));
            verdict.status.set(ACTIVE, false, (reason, message.unwrap_or(text)), now);
            failed(verdict, text.clone());
            return None;
        }
    };
    let pods: Vec<&Pod> = pods.iter().map(|pod| &**pod).collect();
    let specs = scaler.spec.metrics.as_deref().unwrap_or_default();
    let (mut best, mut shown, mut failures): (Option<Proposal>, Vec<Value>, Vec<Failure>) =
        (None, Vec::new(), Vec::new());
    for spec in specs {
        match propose(scaler, spec, (&pods, target), now) {
            Ok(proposal) => {
                shown.push(proposal.shown.clone());
                if best.as_ref().is_none_or(|best| proposal.replicas > best.replicas) {
                    best = Some(proposal);
                }
            }
            Err(failure) => {
                shown.push(json!({"type": ""}));
                verdict.events.push((EventType::Warning, failure.reason, failure.error.clone()));
                failures.push(failure);
            }
        }
    }
    verdict.status.metrics = Value::Array(shown);
    let broken = failures.first().map(|first| {
        format!("invalid metrics ({} invalid out of {}), first error is: {}", failures.len(), specs.len(), first.whole)
    });
    let best = best.filter(|best| failures.is_empty() || best.replicas >= target.replicas);
    match (best, failures.first()) {
        (Some(Proposal { replicas, name, .. }), _) => {
            let message = format!("the HPA was able to successfully calculate a replica count from {name}");
            verdict.status.set(ACTIVE, true, ("ValidMetricFound", &message), now);
            Some((replicas, name))
        }
        (None, first) => {
            if let Some(Failure { reason, error, .. }) = first {
                let message = format!("the HPA was unable to compute the replica count: {error}");
                verdict.status.set(ACTIVE, false, (reason, &message), now);
            }
            failed(verdict, broken.unwrap_or_default());
            None
        }
    }
}

fn propose(
    scaler: &HorizontalPodAutoscaler,
    spec: &MetricSpec,
    (pods, target): (&[&Pod], &Target),
    now: Timestamp,
) -> Result<Proposal, Failure> {
    if let Some(source) = &spec.resource {
        let measured = measure(scaler, (&source.name, None, &source.target), (pods, target), now);
        let fail = |error: String| Failure {
            reason: "FailedGetResourceMetric",
            whole: format!("failed to get {} resource metric value: {error}", source.name),
            error,
        };
        let (replicas, name, current) = measured.map_err(fail)?;
        let shown = json!({"type": "Resource", "resource": {"name": source.name, "current": current}});
        return Ok(Proposal { replicas, name, shown });
    }
    if let Some(source) = &spec.container_resource {
        let wanted = (&*source.name, Some(&*source.container), &source.target);
        let fail = |error: String| Failure {
            reason: "FailedGetContainerResourceMetric",
            whole: format!("failed to get {} container metric value: {error}", source.name),
            error,
        };
        let (replicas, name, current) = measure(scaler, wanted, (pods, target), now).map_err(fail)?;
        let (resource, container) = (&source.name, &source.container);
        let shown = json!({"name": resource, "container": container, "current": current});
        return Ok(Proposal {
            replicas,
            name,
            shown: json!({"type": "ContainerResource", "containerResource": shown}),
        });
    }
    Err(unknown(scaler, spec))
}

/// What upstream says of other metrics where nobody serves them; here nobody can.
fn unknown(scaler: &HorizontalPodAutoscaler, spec: &MetricSpec) -> Failure {
    const NONE: &str = "unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) \
                        registered";
    let namespace = scaler.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(source) = &spec.pods {
        let error = format!("unable to get metric {}: {NONE}", source.metric.name);
        let whole = format!("failed to get pods metric value: {error}");
        Failure { reason: "FailedGetPodsMetric", error, whole }
    } else if let Some(source) = &spec.object {
        let (name, of) = (&source.metric.name, &source.described_object);
        let error = format!("unable to get metric {name}: {} on {namespace} {}/{NONE}", of.kind, of.name);
        let whole = format!("failed to get object metric value: {error}");
        Failure { reason: "FailedGetObjectMetric", error, whole }
    } else if let Some(source) = &spec.external {
        let name = &source.metric.name;
        let selector = selector_text(source.metric.selector.as_ref());
        let error = format!(
            "unable to get external metric {namespace}/{name}/{selector}: unable to fetch metrics from external metrics \
             API: the server could not find the requested resource (get {name}.external.metrics.k8s.io)"
        );
        let whole = format!("failed to get {name} external metric value: {error}");
        Failure { reason: "FailedGetExternalMetric", error, whole }
    } else {
        let error = format!("unknown metric source type {:?}", spec.type_);
        Failure { reason: "InvalidMetricSourceType", whole: error.clone(), error }
    }
}

/// A selector as Go prints it.
fn selector_text(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return "nil".to_owned() };
    let labels = selector.match_labels.iter().flatten().map(|(name, value)| format!("{name}: {value},"));
    let expressions = selector.match_expressions.iter().flatten().map(|one| {
        let values = one.values.iter().flatten().cloned().collect::<Vec<_>>().join(" ");
        format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},", one.key, one.operator)
    });
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{}}},MatchExpressions:[]LabelSelectorRequirement{{{}}},}}",
        labels.collect::<String>(),
        expressions.collect::<String>()
    )
}

/// By what pods, or one container of each, use.
fn measure(
    scaler: &HorizontalPodAutoscaler,
    (resource, container, wanted): (&str, Option<&str>, &MetricTarget),
    (pods, target): (&[&Pod], &Target),
    now: Timestamp,
) -> Result<(i32, String, Value), String> {
    let subject = Subject { pods, resource, container, replicas: target.replicas, tolerance: tolerance(scaler), now };
    let samples = || -> Result<Samples, String> {
        let items = target.metrics.as_ref().map_err(Clone::clone);
        let samples = items.and_then(|items| count::samples(items, resource, container));
        samples.map_err(|error| format!("unable to get metrics for resource {resource}: {error}"))
    };
    let shown = |Count { utilization, average, .. }: Count| json!({"averageUtilization": utilization, "averageValue": Quantity::from_milli(average).to_string()});
    if let Some(average) = &wanted.average_value {
        let average = Quantity::parse(&average.0).map(Quantity::milli_value).map_err(|error| error.to_string())?;
        let count = samples().and_then(|samples| count::by_average(subject, samples, average));
        let count = count.map_err(|error| format!("failed to get {resource} usage: {error}"))?;
        let name = format!("{resource} resource");
        return Ok((count.replicas, name, json!({"averageValue": shown(count)["averageValue"]})));
    }
    let Some(percent) = wanted.average_utilization else {
        return Err("invalid resource metric source: neither an average utilization target nor an average value \
                    (usage) target was set"
            .to_owned());
    };
    let count = samples().and_then(|samples| count::by_utilization(subject, samples, percent));
    let count = count.map_err(|error| format!("failed to get {resource} utilization: {error}"))?;
    Ok((count.replicas, format!("{resource} resource utilization (percentage of request)"), shown(count)))
}

/// How far from the target nothing is done (KEP-4951).
fn tolerance(scaler: &HorizontalPodAutoscaler) -> Tolerance {
    let behavior = scaler.spec.behavior.as_ref();
    let of = |rules: Option<&HPAScalingRules>| {
        let own = rules.and_then(|rules| Quantity::parse(&rules.tolerance.as_ref()?.0).ok());
        own.map_or(TOLERANCE, |own| f64::from(i32::try_from(own.milli_value()).unwrap_or(i32::MAX)) / 1000.0)
    };
    Tolerance {
        up: of(behavior.and_then(|behavior| behavior.scale_up.as_ref())),
        down: of(behavior.and_then(|behavior| behavior.scale_down.as_ref())),
    }
}
