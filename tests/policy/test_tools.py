"""Lint, explain, who-can, diff and test tables, through the command line as a user runs them."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hauberk.cli.policy import policy as command
from hauberk.core.call import Workload
from hauberk.core.finding import Severity
from hauberk.policy.lint import lint
from hauberk.policy.parse import parse_documents

POLICIES = Path(__file__).parents[2] / "examples" / "payments" / "policies"
ORDERS = "spiffe://example.org/ns/production/sa/order-service"
HEAD = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: n}\nspec: "


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def rules_of(spec: str, **options: object) -> dict[str, Severity]:
    return {it.rule: it.severity for it in lint(parse_documents(HEAD + spec), **options)}  # type: ignore[arg-type]


def test_the_sample_that_is_two_rules_is_an_error_with_the_corrected_text(tmp_path: Path) -> None:
    result = run("lint", POLICIES / "split.yaml", "--json")
    assert result.exit_code == 1
    (found,) = json.loads(result.stdout)
    assert (found["rule"], found["severity"]) == ("split-from-to", "error")
    fixed = tmp_path / "fixed.yaml"
    fixed.write_text(found["fix"])
    assert run("lint", fixed).exit_code == 0
    explained = run(
        "explain", fixed, "--to", "production/payment-service", "--method", "POST", "--path", "/api/payments"
    )
    assert explained.exit_code == 1


@pytest.mark.parametrize(
    ("spec", "rule", "severity"),
    [
        ("{rules: [{to: [{operation: {paths: ['*abc*']}}]}]}", "contains-wildcard", Severity.ERROR),
        ("{rules: [{to: [{operation: {paths: ['/a*c']}}]}]}", "inner-wildcard", Severity.WARNING),
        ("{rules: [{to: [{operation: {methods: ['*']}}]}]}", "presence", Severity.INFO),
        ("{rules: [{to: [{operation: {hosts: ['a.com']}}]}]}", "host-without-port", Severity.WARNING),
        ("{rules: [{from: [{source: {principals: ['spiffe://a/b']}}]}]}", "principal-scheme", Severity.ERROR),
        ("{rules: [{from: [{source: {ipBlocks: ['10.0.0.1']}}]}]}", "address-only", Severity.WARNING),
        ("{action: DENY, rules: [{to: [{operation: {paths: ['/a']}}]}]}", "http-in-tcp-deny", Severity.INFO),
        ("{rules: [{}, {to: [{operation: {paths: ['/a']}}]}]}", "unreachable", Severity.WARNING),
        ("{rules: [{}]}", "allow-all", Severity.WARNING),
        ("{targetRefs: [{kind: Gateway, name: g}], rules: [{}]}", "gateway-only", Severity.WARNING),
        (
            "{rules: [{to: [{operation: {methods: [GET], notMethods: [GET]}}]}]}",
            "unreachable",
            Severity.WARNING,
        ),
    ],
)
def test_lint_knows(spec: str, rule: str, severity: Severity) -> None:
    assert rules_of(spec).get(rule) is severity


def test_lint_knows_policies_that_select_nobody_and_permissive_modes() -> None:
    somebody = [Workload("n", "a", {"app": "a"})]
    assert "selects-nobody" in rules_of("{selector: {matchLabels: {app: typo}}}", workloads=somebody)
    assert "selects-nobody" not in rules_of("{selector: {matchLabels: {app: a}}}", workloads=somebody)
    text = HEAD.replace("AuthorizationPolicy", "PeerAuthentication") + "{mtls: {mode: PERMISSIVE}}"
    assert [it.rule for it in lint(parse_documents(text))] == ["permissive"]


def test_the_example_policies_have_no_errors() -> None:
    assert run("lint", POLICIES / "mesh.yaml").exit_code == 0


def test_explain_names_the_rule_or_the_nearest_miss() -> None:
    ask = ("explain", POLICIES / "mesh.yaml", "--to", "production/payment-service", "--path", "/api/payments")
    good = run(*ask, "--from", ORDERS, "--method", "POST")
    assert good.exit_code == 0
    assert "orders-may-pay" in good.stdout
    bad = run(*ask, "--from", ORDERS, "--method", "DELETE", "--json")
    assert bad.exit_code == 1
    told = json.loads(bad.stdout)
    assert told["nearest"]["rule"] == "ns[production]-policy[orders-may-pay]-rule[0]"
    assert "DELETE" in told["nearest"]["missed"][0]
    denied = run(
        "explain", POLICIES / "mesh.yaml", "--to", "production/payment-service", "--path", "/admin/x", "--from", ORDERS
    )
    assert "nobody-deletes" in denied.stdout


def test_who_can_lists_exactly_the_callers() -> None:
    ask = ("--to", "production/payment-service", "--method", "POST", "--path", "/api/payments")
    assert run("who-can", POLICIES / "mesh.yaml", *ask).stdout.split()[0] == ORDERS
    assert "anybody" in run("who-can", POLICIES / "split.yaml", *ask).stdout
    assert (
        run("who-can", POLICIES / "mesh.yaml", "--to", "production/payment-service", "--path", "/admin/x").stdout
        == "nobody\n"
    )


def test_diff_shows_the_calls_that_change(tmp_path: Path) -> None:
    same = run("diff", POLICIES / "mesh.yaml", POLICIES / "mesh.yaml")
    assert (same.exit_code, same.stdout) == (0, "")
    changed = tmp_path / "new.yaml"
    changed.write_text((POLICIES / "mesh.yaml").read_text().replace('"/api/settlements"', '"/api/refunds"'))
    result = run("diff", POLICIES / "mesh.yaml", changed, "--json")
    assert result.exit_code == 1
    verdicts = {(it["path"], it["before"], it["after"]) for it in json.loads(result.stdout)["verdicts"]}
    assert verdicts == {("/api/settlements", "allow", "deny"), ("/api/refunds", "deny", "allow")}


def test_a_table_of_calls_is_checked(tmp_path: Path) -> None:
    table = tmp_path / "table.yaml"
    row = f"- {{from: '{ORDERS}', to: production/payment-service, method: POST, path: /api/payments, expect: %s}}\n"
    table.write_text(row % "allow" + "- {to: production/payment-service, expect: deny}\n")
    assert run("test", table, POLICIES / "mesh.yaml").exit_code == 0
    table.write_text(row % "deny")
    result = run("test", table, POLICIES / "mesh.yaml")
    assert result.exit_code == 1
    assert "FAIL" in result.stdout
