use proptest::prelude::*;
use serde_json::{Value, json};

use super::{decode, encode, encode_event};

/// A message under construction, so that each case shows its numbers.
#[derive(Default, Clone)]
struct Message(Vec<u8>);

impl Message {
    fn varint(mut self, number: u8, value: u64) -> Self {
        self.push(u64::from(number) << 3);
        self.push(value);
        self
    }

    fn bytes(mut self, number: u8, value: impl AsRef<[u8]>) -> Self {
        self.push(u64::from(number) << 3 | 2);
        self.push(value.as_ref().len().try_into().unwrap());
        self.0.extend_from_slice(value.as_ref());
        self
    }

    fn push(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).unwrap());
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn m() -> Message {
    Message::default()
}

fn envelope(version: &str, kind: &str, object: &Message) -> Vec<u8> {
    let unknown = m().bytes(1, m().bytes(1, version).bytes(2, kind)).bytes(2, object).bytes(3, "").bytes(4, "");
    [b"k8s\0", unknown.as_ref()].concat()
}

fn decoded(version: &str, kind: &str, object: &Message) -> Value {
    let mut value = decode(&envelope(version, kind, object)).unwrap();
    let fields = value.as_object_mut().unwrap();
    assert_eq!(fields.remove("apiVersion").unwrap(), version);
    assert_eq!(fields.remove("kind").unwrap(), kind);
    value
}

#[test]
fn a_deployment_as_kubectl_create_sends_it() {
    let port = m().bytes(1, "").varint(2, 0).varint(3, 80).bytes(4, "").bytes(5, "");
    let resources = m().bytes(1, m().bytes(1, "cpu").bytes(2, m().bytes(1, "500m")));
    let probe = m().bytes(1, m().bytes(2, m().bytes(1, "/x").bytes(2, m().varint(1, 1).varint(2, 0).bytes(3, "http"))));
    let container = m().bytes(1, "web").bytes(2, "nginx").bytes(6, &port).bytes(8, &resources).bytes(10, &probe);
    let volume = m().bytes(1, "v").bytes(2, m().bytes(2, m().bytes(1, "")));
    let pod = m()
        .bytes(1, &volume)
        .bytes(2, container.varint(16, 0).varint(17, 0).varint(18, 0))
        .bytes(3, "")
        .bytes(8, "")
        .varint(11, 0)
        .varint(21, 0);
    let labels = m().bytes(1, m().bytes(1, "app").bytes(2, "web"));
    let template = m().bytes(1, m().bytes(11, m().bytes(1, "app").bytes(2, "web")).bytes(8, "")).bytes(2, &pod);
    let spec = m().varint(1, 0).bytes(2, &labels).bytes(3, &template).bytes(4, m().bytes(1, "")).varint(5, 0);
    let metadata = m().bytes(1, "web").bytes(2, "").bytes(3, "default").varint(7, 0).bytes(8, "");
    let deployment = m().bytes(1, &metadata).bytes(2, &spec).bytes(3, m().varint(1, 0).varint(2, 0));
    let expected = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "automountServiceAccountToken": false,
                    "volumes": [{"name": "v", "emptyDir": {}}],
                    "containers": [{
                        "name": "web", "image": "nginx",
                        "ports": [{"containerPort": 80}],
                        "resources": {"limits": {"cpu": "500m"}},
                        "livenessProbe": {"httpGet": {"path": "/x", "port": "http"}},
                    }],
                },
            },
        },
        "status": {},
    });
    assert_eq!(decoded("apps/v1", "Deployment", &deployment), expected);
}

#[test]
fn bytes_times_and_negative_numbers() {
    let secret = m().bytes(2, m().bytes(1, "a").bytes(2, "hey")).bytes(3, "Opaque").bytes(2, m().bytes(1, "empty"));
    let expected = json!({"data": {"a": "aGV5", "empty": ""}, "type": "Opaque"});
    assert_eq!(decoded("v1", "Secret", &secret), expected);
    let spec = m().bytes(1, "me").varint(2, 15).bytes(4, m().varint(1, 1_767_323_045).varint(2, 600_000_000));
    let expected = json!({"spec": {"holderIdentity": "me", "leaseDurationSeconds": 15,
        "renewTime": "2026-01-02T03:04:05.600000Z"}});
    assert_eq!(decoded("coordination.k8s.io/v1", "Lease", &m().bytes(2, &spec)), expected);
    let class = m().bytes(1, m().bytes(8, m().varint(1, 1_767_323_045).varint(2, 0))).varint(2, u64::MAX - 9);
    let expected = json!({"metadata": {"creationTimestamp": "2026-01-02T03:04:05Z"}, "value": -10});
    assert_eq!(decoded("scheduling.k8s.io/v1", "PriorityClass", &class), expected);
}

#[test]
fn reviews_and_options_are_read_too() {
    let attributes = m().bytes(1, "default").bytes(2, "list").bytes(5, "pods");
    let review = m().bytes(2, m().bytes(1, &attributes)).bytes(3, m().varint(1, 0).bytes(2, ""));
    let expected = json!({
        "spec": {"resourceAttributes": {"namespace": "default", "verb": "list", "resource": "pods"}},
        "status": {"allowed": false},
    });
    assert_eq!(decoded("authorization.k8s.io/v1", "SelfSubjectAccessReview", &review), expected);
    let options = m().varint(1, 0).bytes(4, "Background").bytes(2, m().bytes(1, "u-1"));
    let expected = json!({"gracePeriodSeconds": 0, "propagationPolicy": "Background", "preconditions": {"uid": "u-1"}});
    assert_eq!(decoded("v1", "DeleteOptions", &options), expected);
    let extra = m().bytes(1, "k").bytes(2, m().bytes(1, "a").bytes(1, "b"));
    let review = m().bytes(2, m().bytes(1, m().bytes(1, "u").bytes(4, &extra)));
    let expected = json!({"status": {"userInfo": {"username": "u", "extra": {"k": ["a", "b"]}}}});
    assert_eq!(decoded("authentication.k8s.io/v1", "SelfSubjectReview", &review), expected);
}

#[test]
fn what_is_no_message_is_a_bad_request() {
    for body in
        [&b""[..], b"{}", b"k8s", b"k8s\0\x0a", b"k8s\0\x0f", b"k8s\0\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"]
    {
        let error = decode(body).unwrap_err();
        assert_eq!((error.code, error.reason.as_str()), (400, "BadRequest"), "{body:?}");
    }
    let error = decode(&envelope("v9", "Nope", &m())).unwrap_err();
    assert_eq!(error.message, "no kind \"Nope\" is registered for version \"v9\"");
}

#[test]
fn a_message_inside_itself_ends_where_the_types_end() {
    let mut inner = m();
    for _ in 0..1_000 {
        inner = m().bytes(2, &inner);
    }
    assert_eq!(decode(&envelope("v1", "Pod", &inner)).unwrap_err().code, 400, "a number that leads to text in the end");
}

#[test]
fn what_is_encoded_is_read_back() {
    for object in [
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "creationTimestamp": "2026-01-02T03:04:05Z",
            "annotations": {"k": "v"}, "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}]},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "500m"}},
                "livenessProbe": {"httpGet": {"path": "/x", "port": "http"}, "periodSeconds": 7}}],
                "volumes": [{"name": "v", "emptyDir": {}}], "automountServiceAccountToken": false},
            "status": {"phase": "Running"}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {}, "data": {"a": "aGV5", "empty": ""}, "type": "Opaque"}),
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
            "spec": {"holderIdentity": "me", "renewTime": "2026-01-02T03:04:05.600000Z"}}),
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "p"}, "value": -10}),
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview", "metadata": {},
            "status": {"userInfo": {"username": "u", "extra": {"k": ["a", "b"]}}}}),
    ] {
        assert_eq!(decode(&encode(&object).unwrap()).unwrap(), object);
    }
}

#[test]
fn lists_states_and_events_have_the_numbers_of_upstream() {
    let list = json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "7"},
        "items": [{"metadata": {"name": "a"}, "data": {"k": "v"}}]});
    let item = m().bytes(1, m().bytes(1, "a")).bytes(2, m().bytes(1, "k").bytes(2, "v"));
    let expected = m().bytes(1, m().bytes(2, "7")).bytes(2, &item);
    assert_eq!(encode(&list).unwrap(), envelope("v1", "ConfigMapList", &expected));
    let status = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "reason": "NotFound",
        "message": "no", "details": {"name": "x", "kind": "pods"}, "code": 404});
    let expected = m()
        .bytes(1, m())
        .bytes(2, "Failure")
        .bytes(3, "no")
        .bytes(4, "NotFound")
        .bytes(5, m().bytes(1, "x").bytes(3, "pods"))
        .varint(6, 404);
    assert_eq!(encode(&status).unwrap(), envelope("v1", "Status", &expected));
    let event =
        json!({"type": "ADDED", "object": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}});
    let object = envelope("v1", "ConfigMap", &m().bytes(1, m().bytes(1, "a")));
    let expected = m().bytes(1, "ADDED").bytes(2, m().bytes(1, object));
    let frame = [&u32::try_from(expected.0.len()).unwrap().to_be_bytes()[..], expected.as_ref()].concat();
    assert_eq!(encode_event(&event).unwrap(), frame);
    let table = json!({"apiVersion": "meta.k8s.io/v1", "kind": "Table", "rows": []});
    assert_eq!(encode(&table).unwrap_err().code, 406);
}

proptest! {
    #[test]
    fn arbitrary_bytes_give_a_value_or_a_bad_request(body in prop::collection::vec(any::<u8>(), 0..300)) {
        for (version, kind) in [("v1", "Pod"), ("apps/v1", "Deployment"), ("v1", "Secret"), ("v1", "DeleteOptions")] {
            match decode(&envelope(version, kind, &Message(body.clone()))) {
                Ok(value) => prop_assert!(value.is_object()),
                Err(error) => prop_assert_eq!(error.code, 400),
            }
        }
        let _ = decode(&body);
        let _ = decode(&[b"k8s\0", body.as_slice()].concat());
    }
}
