#!/usr/bin/env python3
"""The official Python client against an API server: what scripts and operators written with it do.
usage: KUBECONFIG=… scenarios.py      Prints `ok NAME` or `not ok NAME: why` for each scenario and fails if any failed."""
import sys, threading, time, traceback

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.exceptions import ApiException

config.load_kube_config()
api = client.ApiClient()
core, apps, batch = client.CoreV1Api(api), client.AppsV1Api(api), client.BatchV1Api(api)
rbac, networking, extensions = client.RbacAuthorizationV1Api(api), client.NetworkingV1Api(api), client.ApiextensionsV1Api(api)
NAMESPACE = "python-client"


def expect(condition, words=""):
    if not condition:
        raise AssertionError(words)


def refused(code, reason, call, *arguments, **options):
    try:
        call(*arguments, **options)
    except ApiException as error:
        expect(error.status == code and f'"reason":"{reason}"' in error.body.replace(": ", ":"), f"{error.status} {error.body}")
        return error
    raise AssertionError(f"not refused with {code} {reason}")


def config_map(name, **data):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels={"app": "test"}), data=data)


def namespaces_are_made_and_listed():
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=NAMESPACE)))
    names = [item.metadata.name for item in core.list_namespace().items]
    expect({"default", "kube-system", NAMESPACE} <= set(names), names)
    for _ in range(100):
        if core.list_namespaced_service_account(NAMESPACE).items:
            return
        time.sleep(0.1)
    raise AssertionError("no default service account")


def objects_are_created_read_replaced_patched_and_deleted():
    made = core.create_namespaced_config_map(NAMESPACE, config_map("a", k="1"))
    expect(made.metadata.uid and made.metadata.creation_timestamp.tzinfo, made)
    refused(409, "AlreadyExists", core.create_namespaced_config_map, NAMESPACE, config_map("a"))
    made.data["k"] = "2"
    replaced = core.replace_namespaced_config_map("a", NAMESPACE, made)
    refused(409, "Conflict", core.replace_namespaced_config_map, "a", NAMESPACE, made)
    patched = core.patch_namespaced_config_map("a", NAMESPACE, {"data": {"more": "3"}})
    expect(patched.data == {"k": "2", "more": "3"} and patched.metadata.uid == replaced.metadata.uid, patched.data)
    by_json = [{"op": "remove", "path": "/data/k"}]
    expect(core.patch_namespaced_config_map("a", NAMESPACE, by_json).data == {"more": "3"})
    # This client has a status as it came, since kinds other than ours answer with the object.
    deleted = core.delete_namespaced_config_map("a", NAMESPACE)
    expect((deleted if isinstance(deleted, dict) else deleted.to_dict())["status"] == "Success", repr(deleted))
    refused(404, "NotFound", core.read_namespaced_config_map, "a", NAMESPACE)


def lists_select_and_continue():
    for index in range(7):
        core.create_namespaced_config_map(NAMESPACE, config_map(f"page-{index}", n=str(index)))
    seen, token = [], None
    while True:
        page = core.list_namespaced_config_map(NAMESPACE, limit=3, _continue=token, label_selector="app=test")
        seen += [item.metadata.name for item in page.items]
        token = page.metadata._continue
        if not token:
            break
    expect(seen == [f"page-{index}" for index in range(7)], seen)
    one = core.list_namespaced_config_map(NAMESPACE, field_selector="metadata.name=page-3").items
    expect([item.data for item in one] == [{"n": "3"}], one)
    core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="app=test")
    expect(not core.list_namespaced_config_map(NAMESPACE, label_selector="app=test").items)


def watches_tell_what_happens():
    version = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version

    def act():
        core.create_namespaced_config_map(NAMESPACE, config_map("watched"))
        core.patch_namespaced_config_map("watched", NAMESPACE, {"data": {"x": "1"}})
        core.delete_namespaced_config_map("watched", NAMESPACE)

    acting = threading.Timer(0.2, act)
    acting.start()
    events = []
    stream = watch.Watch()
    for event in stream.stream(core.list_namespaced_config_map, NAMESPACE, resource_version=version, timeout_seconds=20):
        if event["object"].metadata.name == "watched":
            events.append(event["type"])
        if event["type"] == "DELETED":
            stream.stop()
    acting.join()
    expect(events == ["ADDED", "MODIFIED", "DELETED"], events)


def workloads_have_defaults_and_scale():
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels={"app": "web"}),
        spec=client.V1PodSpec(containers=[client.V1Container(name="web", image="localhost/web:1")]),
    )
    selector = client.V1LabelSelector(match_labels={"app": "web"})
    spec = client.V1DeploymentSpec(replicas=2, selector=selector, template=template)
    made = apps.create_namespaced_deployment(NAMESPACE, client.V1Deployment(metadata=client.V1ObjectMeta(name="web"), spec=spec))
    expect(made.spec.strategy.type == "RollingUpdate" and made.spec.template.spec.restart_policy == "Always", made.spec)
    scale = apps.patch_namespaced_deployment_scale("web", NAMESPACE, {"spec": {"replicas": 5}})
    expect(scale.spec.replicas == 5 and apps.read_namespaced_deployment("web", NAMESPACE).spec.replicas == 5)
    wrong = client.V1Deployment(metadata=client.V1ObjectMeta(name="wrong"), spec=spec)
    wrong.spec = client.V1DeploymentSpec(selector=client.V1LabelSelector(match_labels={"app": "other"}), template=template)
    refused(422, "Invalid", apps.create_namespaced_deployment, NAMESPACE, wrong)
    apps.delete_namespaced_deployment("web", NAMESPACE, propagation_policy="Foreground")


def server_side_apply_has_managers_and_conflicts():
    dynamic_client = dynamic.DynamicClient(api)
    maps = dynamic_client.resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"k": "1"}}
    made = maps.server_side_apply(body=body, namespace=NAMESPACE, field_manager="one")
    expect([entry["manager"] for entry in made.metadata.managedFields] == ["one"], made.metadata.managedFields)
    body["data"]["k"] = "2"
    try:
        maps.server_side_apply(body=body, namespace=NAMESPACE, field_manager="two")
        raise AssertionError("no conflict")
    except dynamic.exceptions.ConflictError as error:
        expect("FieldManagerConflict" in str(error.body), error.body)
    forced = maps.server_side_apply(body=body, namespace=NAMESPACE, field_manager="two", force_conflicts=True)
    expect(forced.data.k == "2")


def manifests_are_created_from_dictionaries():
    utils.create_from_dict(api, {
        "apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"p": "word"}},
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}},
            {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"template": {"spec": {
                "restartPolicy": "Never", "containers": [{"name": "c", "image": "localhost/c:1"}]}}}},
        ]}, namespace=NAMESPACE)
    expect(core.read_namespaced_secret("s", NAMESPACE).data == {"p": "d29yZA=="})
    expect(core.read_namespaced_service("web", NAMESPACE).spec.cluster_ip)
    expect(batch.read_namespaced_job("j", NAMESPACE).spec.backoff_limit == 6)


def custom_resources_are_served():
    group, plural = "python.example.com", "crontabs"
    schema = client.V1JSONSchemaProps(type="object", properties={"spec": client.V1JSONSchemaProps(type="object", properties={
        "replicas": client.V1JSONSchemaProps(type="integer", minimum=1, default=1)})})
    version = client.V1CustomResourceDefinitionVersion(
        name="v1", served=True, storage=True, schema=client.V1CustomResourceValidation(open_apiv3_schema=schema))
    names = client.V1CustomResourceDefinitionNames(plural=plural, singular="crontab", kind="CronTab")
    spec = client.V1CustomResourceDefinitionSpec(group=group, scope="Namespaced", names=names, versions=[version])
    extensions.create_custom_resource_definition(
        client.V1CustomResourceDefinition(metadata=client.V1ObjectMeta(name=f"{plural}.{group}"), spec=spec))
    for _ in range(100):
        conditions = extensions.read_custom_resource_definition(f"{plural}.{group}").status.conditions or []
        if any(condition.type == "Established" and condition.status == "True" for condition in conditions):
            break
        time.sleep(0.1)
    custom = client.CustomObjectsApi(api)
    body = {"apiVersion": f"{group}/v1", "kind": "CronTab", "metadata": {"name": "c"}, "spec": {}}
    made = custom.create_namespaced_custom_object(group, "v1", NAMESPACE, plural, body)
    expect(made["spec"] == {"replicas": 1}, made)
    body["metadata"]["name"], body["spec"] = "d", {"replicas": 0}
    refused(422, "Invalid", custom.create_namespaced_custom_object, group, "v1", NAMESPACE, plural, body)
    expect(len(custom.list_namespaced_custom_object(group, "v1", NAMESPACE, plural)["items"]) == 1)
    extensions.delete_custom_resource_definition(f"{plural}.{group}")


def roles_bind_and_reviews_answer():
    rbac.create_namespaced_role(NAMESPACE, client.V1Role(metadata=client.V1ObjectMeta(name="reader"), rules=[
        client.V1PolicyRule(api_groups=[""], resources=["configmaps"], verbs=["get", "list"])]))
    rbac.create_namespaced_role_binding(NAMESPACE, client.V1RoleBinding(
        metadata=client.V1ObjectMeta(name="reader"),
        role_ref=client.V1RoleRef(api_group="rbac.authorization.k8s.io", kind="Role", name="reader"),
        subjects=[client.RbacV1Subject(kind="ServiceAccount", name="default", namespace=NAMESPACE)]))
    token = core.create_namespaced_service_account_token("default", NAMESPACE, {"spec": {"expirationSeconds": 600}}).status.token
    settings = client.Configuration.get_default_copy()
    settings.cert_file = settings.key_file = None
    settings.api_key = {"authorization": f"Bearer {token}"}
    account = client.CoreV1Api(client.ApiClient(settings))
    account.list_namespaced_config_map(NAMESPACE)
    refused(403, "Forbidden", account.list_namespaced_secret, NAMESPACE)
    attributes = client.V1ResourceAttributes(namespace=NAMESPACE, verb="delete", resource="configmaps")
    review = client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes))
    expect(not client.AuthorizationV1Api(client.ApiClient(settings)).create_self_subject_access_review(review).status.allowed)


def discovery_lists_what_is_served():
    groups = {group.name for group in client.ApisApi(api).get_api_versions().groups}
    expect({"apps", "batch", "rbac.authorization.k8s.io", "networking.k8s.io", "apiextensions.k8s.io"} <= groups, groups)
    names = {resource.name for resource in core.get_api_resources().resources}
    expect({"pods", "pods/log", "configmaps", "services", "nodes"} <= names, names)
    expect(client.VersionApi(api).get_code().git_version.startswith("v1."))


def namespaces_go_with_what_is_in_them():
    core.delete_namespace(NAMESPACE)
    for _ in range(300):
        try:
            core.read_namespace(NAMESPACE)
        except ApiException as error:
            expect(error.status == 404, error)
            return
        time.sleep(0.1)
    raise AssertionError(f"still there: {core.read_namespace(NAMESPACE).status}")


failed = 0
for scenario in [
    namespaces_are_made_and_listed, objects_are_created_read_replaced_patched_and_deleted, lists_select_and_continue,
    watches_tell_what_happens, workloads_have_defaults_and_scale,
    server_side_apply_has_managers_and_conflicts, manifests_are_created_from_dictionaries, custom_resources_are_served,
    roles_bind_and_reviews_answer, discovery_lists_what_is_served, namespaces_go_with_what_is_in_them,
]:
    name = scenario.__name__.replace("_", " ")
    try:
        scenario()
        print(f"ok python: {name}", flush=True)
    except Exception as error:
        failed += 1
        print(f"not ok python: {name}: {type(error).__name__} {str(error)[:2000]}", flush=True)
        traceback.print_exc()
sys.exit(failed > 0)
