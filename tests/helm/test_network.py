"""Who may talk to whom."""

from tests.helm.charts import VALUES, matches, of_kind, only, pods, rendered, template


def policy(name, component):
    return only(of_kind(rendered(name), "NetworkPolicy", component))["spec"]


def ports(rules):
    return sorted({port["port"] for rule in rules for port in rule["ports"]})


def test_all_pods_are_denied_by_default(objects):
    policies = of_kind(objects, "NetworkPolicy")
    if not policies:
        assert objects == rendered("no-network-policies")
        return
    deny = only(of_kind(objects, "NetworkPolicy", "network"))["spec"]
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & set(deny)
    assert all(matches(deny["podSelector"], labels) for _, labels, _ in pods(objects))


def test_no_rule_is_open_to_everyone(objects):
    """An empty list of peers or ports means all of them."""
    for found in of_kind(objects, "NetworkPolicy"):
        for rule in found["spec"].get("ingress") or []:
            assert rule["from"]
            assert rule["ports"]
        for rule in found["spec"].get("egress") or []:
            assert rule["to"]
            assert rule["ports"]


def test_every_policy_has_pods(objects):
    for found in of_kind(objects, "NetworkPolicy"):
        assert any(matches(found["spec"]["podSelector"], labels) for _, labels, _ in pods(objects))


def test_worker():
    assert ports(policy("external", "worker")["ingress"]) == [9100]
    assert ports(policy("external", "worker")["egress"]) == [53, 5433, 6379]
    assert ports(policy("tracing", "worker")["egress"]) == [53, 4318, 5433, 6379]
    assert ports(policy("hub", "worker")["egress"]) == [53, 443, 5433, 6379]
    assert ports(policy("hub-offline", "worker")["egress"]) == [53, 5433, 6379]
    assert policy("bare", "worker")["ingress"] == []


def test_api():
    by_port = {rule["ports"][0]["port"]: rule["from"] for rule in policy("external", "api")["ingress"]}
    assert set(by_port) == {8000, 9100}
    assert {"podSelector": {}} in by_port[8000]
    assert by_port[9100] == policy("external", "worker")["ingress"][0]["from"]
    assert ports(policy("external", "api")["egress"]) == [53, 5433, 6379]
    assert ports(policy("bare", "api")["ingress"]) == [8000]


def test_the_api_asks_workers_for_chats_by_one_rule_each_way():
    for name in ("roles", "trial"):
        inward = [rule for rule in policy(name, "worker")["ingress"] if rule["ports"][0]["port"] == 9200]
        outward = [rule for rule in policy(name, "api")["egress"] if rule["ports"][0]["port"] == 9200]
        for rule, key, component in ((only(inward), "from", "api"), (only(outward), "to", "worker")):
            (peer,) = rule[key]
            assert set(peer) == {"podSelector"}
            assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == component
        assert 9200 not in ports(policy(name, "worker")["egress"]) + ports(policy(name, "api")["ingress"])
    for name in ("external", "bare"):
        assert 9200 not in ports(policy(name, "worker")["ingress"]) + ports(policy(name, "api")["egress"])


def test_migration_reaches_the_database_only():
    assert ports(policy("external", "migrate")["egress"]) == [53, 5433]
    assert not policy("external", "migrate").get("ingress")


def test_trial_servers():
    labels = {"app.kubernetes.io/name": "onward", "app.kubernetes.io/instance": "trio"}
    for server, port in (("postgres", 5432), ("valkey", 6379)):
        found = policy("trial", server)
        rule = only(found["ingress"])
        assert ports([rule]) == [port]
        assert "egress" not in found
        assert all(labels.items() <= peer["podSelector"]["matchLabels"].items() for peer in rule["from"])
    operator = policy("trial-keda", "postgres")["ingress"][0]["from"][-1]
    assert operator["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "keda"}


def test_dns_is_asked_where_it_answers():
    """Of every policy that lets a name be looked up, and by both protocols."""
    for name, port in {"openshift": 5353, "trial": 53}.items():
        asking = [p for p in of_kind(rendered(name), "NetworkPolicy") if p["spec"].get("egress")]
        assert len(asking) >= 4
        for found in asking:
            rule = found["spec"]["egress"][0]
            assert rule["ports"] == [{"port": port, "protocol": "UDP"}, {"port": port, "protocol": "TCP"}]
    assert {"ipBlock": {"cidr": "169.254.20.10/32"}} in policy("ingress-hpa", "worker")["egress"][0]["to"]


def test_the_ingress_controller_reaches_the_api():
    controller = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}
    (peers,) = [r["from"] for r in policy("ingress-hpa", "api")["ingress"] if r["ports"][0]["port"] == 8000]
    assert controller in peers
    assert not any("namespaceSelector" in peer for peer in policy("external", "api")["ingress"][0]["from"])
    beyond = (
        "api: {ingress: {enabled: true, host: a}}\nnetworkPolicy: {clients: [{ipBlock: {cidr: 10.0.0.0/8}}]}",
        "api: {ingress: {enabled: true, host: a}}\nnetworkPolicy: {enabled: false}",
    )
    for given in beyond:
        run = template(VALUES[0].parent / "external.yaml", "-f", "-", given=given)
        assert run.returncode == 0, run.stderr
