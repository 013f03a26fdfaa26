"""Lint, explain, who-can, diff and test tables, through the command line as a user runs them."""

import json
from pathlib import Path

from click.testing import CliRunner, Result

from hauberk.cli.policy import policy as command

POLICIES = Path(__file__).parents[2] / "examples" / "payments" / "policies"
ORDERS = "spiffe://example.org/ns/production/sa/order-service"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


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
