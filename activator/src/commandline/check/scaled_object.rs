//! The numbers of a ScaledObject, compared with ours. In: its YAML or JSON, settings. Out: where they do not fit. Pure.

use std::collections::HashMap;

use serde::Deserialize;

use super::finding::Findings;
use crate::config::Settings;
use crate::scaler::Trigger;

pub(super) const PART: &str = "scaledobject";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ScaledObject {
    kind: String,
    spec: ScaledSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ScaledSpec {
    scale_target_ref: TargetRef,
    polling_interval: Option<u64>,
    cooldown_period: Option<u64>,
    idle_replica_count: Option<u32>,
    min_replica_count: Option<u32>,
    max_replica_count: Option<u32>,
    triggers: Vec<ScaledTrigger>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TargetRef {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ScaledTrigger {
    #[serde(rename = "type")]
    kind: String,
    metric_type: Option<String>,
    metadata: HashMap<String, String>,
}

/// KEDA's own values where the object has none.
const POLLING: u64 = 30;
const COOLDOWN: u64 = 300;
const MOST: u32 = 100;

/// Compares the object of a text.
pub(super) fn compare_text(text: &str, settings: &Settings) -> Findings {
    const FIX: &str = "give it as `kubectl get scaledobject NAME -o yaml` prints it";
    let mut found = Findings::default();
    match serde_saphyr::from_str::<ScaledObject>(text) {
        Err(_) => found.fault(PART, "file", format!("is no YAML of one ScaledObject: {FIX}")),
        Ok(object) if object.kind != "ScaledObject" => {
            found.fault(PART, "kind", format!("is not ScaledObject: {FIX}"));
        }
        Ok(object) => compare(&object, settings, &mut found),
    }
    found
}

/// Compares the object that the Kubernetes API gave. `whose`: the API server.
#[cfg(feature = "kubernetes")]
pub(super) fn compare_json(object: &serde_json::Value, whose: &str, settings: &Settings) -> Findings {
    let mut found = Findings::default();
    match ScaledObject::deserialize(object) {
        Ok(object) if object.kind == "ScaledObject" => compare(&object, settings, &mut found),
        _ => found.fault(
            PART,
            "api",
            format!("{whose} answered with something else than a ScaledObject: correct the address in the kubeconfig"),
        ),
    }
    found
}

fn compare(object: &ScaledObject, settings: &Settings, found: &mut Findings) {
    let spec = &object.spec;
    let ours: Vec<&ScaledTrigger> =
        spec.triggers.iter().filter(|trigger| ["external-push", "external"].contains(&trigger.kind.as_str())).collect();
    match ours.as_slice() {
        [] => found.fault(
            PART,
            "triggers",
            "has no trigger of type external-push, so nothing wakes workers: add one with our scalerAddress",
        ),
        all if all.iter().all(|trigger| trigger.kind == "external") => {
            let text = "is external, so a cold start waits for the next poll: make its type external-push";
            found.warning(PART, "triggers", text);
        }
        _ => {}
    }
    ours.iter().for_each(|trigger| one(trigger, settings, found));
    numbers(spec, settings, found);
    if found.findings.is_empty() {
        found.good("scaledobject: fits these settings");
    }
}

fn one(trigger: &ScaledTrigger, settings: &Settings, found: &mut Findings) {
    let capacity = settings.capacity;
    match Trigger::parse(&trigger.metadata, capacity) {
        Err(error) => found.fault(PART, "metadata", error.to_string()),
        Ok(read) if read.target > f64::from(capacity) => found.fault(
            PART,
            "target",
            format!("is {}, but a worker takes {capacity} streams (CAPACITY), so publishers would wait for workers that never come: make both equal", read.target),
        ),
        Ok(read) if read.target < f64::from(capacity) => found.warning(
            PART,
            "target",
            format!("is {}, but a worker takes {capacity} streams (CAPACITY), so there are more workers than needed: make both equal", read.target),
        ),
        Ok(_) => {}
    }
    let port = settings.listen.scaler.map(|scaler| scaler.port());
    let address = trigger.metadata.get("scalerAddress").map(String::as_str).unwrap_or_default();
    let theirs = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    match (port, theirs) {
        (None, _) => found.fault(PART, "scalerAddress", "leads to a scaler that these settings do not have: set SCALER_LISTEN, or FLEET=external"),
        (Some(_), None) => found.fault(PART, "scalerAddress", "is missing or has no port: write the scaler's Service and its port, HOST:6000"),
        (Some(ours), Some(theirs)) if ours != theirs => found.warning(
            PART,
            "scalerAddress",
            format!("has port {theirs}, and the scaler listens on {ours} (SCALER_LISTEN): a Service has to lead from one to the other"),
        ),
        _ => {}
    }
    if trigger.metric_type.as_deref().is_some_and(|kind| kind != "AverageValue") {
        found.fault(PART, "metricType", "is not AverageValue, so the HPA divides by nothing: write AverageValue");
    }
}

fn numbers(spec: &ScaledSpec, settings: &Settings, found: &mut Findings) {
    let (hold, polling) = (settings.hold.as_secs(), spec.polling_interval.unwrap_or(POLLING));
    if polling >= hold {
        let text = format!(
            "is {polling} s, and a publisher is held for {hold} s (HOLD_TIMEOUT): a push that is lost costs it its stream; make it shorter, 5 s is usual"
        );
        found.fault(PART, "pollingInterval", text);
    }
    let (grace, cooldown) = (settings.grace.as_secs(), spec.cooldown_period.unwrap_or(COOLDOWN));
    if cooldown < grace {
        let text = format!(
            "is {cooldown} s, shorter than the {grace} s for which a lost publisher is waited for (GRACE): make it longer, 300 s is usual"
        );
        found.warning(PART, "cooldownPeriod", text);
    }
    let most = spec.max_replica_count.unwrap_or(MOST);
    if most != settings.max_workers {
        let text = format!(
            "is {most}, and MAX_WORKERS is {}: make both equal, or the watchdog and each address's share count by another number",
            settings.max_workers
        );
        found.warning(PART, "maxReplicaCount", text);
    }
    let least = spec.idle_replica_count.or(spec.min_replica_count).unwrap_or(0);
    if least > 0 {
        let text = format!(
            "is {least}, so there are workers while nobody publishes: write idleReplicaCount: 0, unless they are to be warm"
        );
        found.warning(PART, "idleReplicaCount", text);
    }
    if let Some(deployment) = settings.kubernetes.as_ref().map(|kubernetes| kubernetes.deployment.as_str())
        && deployment != spec.scale_target_ref.name
    {
        let text = format!(
            "names {}, and WORKER_DEPLOYMENT is {deployment}: name one Deployment in both",
            spec.scale_target_ref.name
        );
        found.fault(PART, "scaleTargetRef", text);
    }
}
