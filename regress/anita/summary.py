# SPDX-License-Identifier: BSD-2-Clause
"""atf-report's summary."""

import re
from typing import NamedTuple


class Counts(NamedTuple):
    """How many test cases ended how."""

    passed: int
    failed: int
    expected: int
    skipped: int


KINDS = {
    "passed": r"(\d+) passed test cases?\.",
    "failed": r"(\d+) failed test cases?\.",
    "expected": r"(\d+) expected failed test cases?\.",
    "skipped": r"(\d+) skipped test cases?\.",
}


def parse(report):
    """The counts in a report; None if it has no summary.

    A report that breaks off in the summary has none: what is missing might be the
    failures. Programs that did not run to their end count as failures.
    """
    summary = report[report.rfind("Summary for "):] if "Summary for " in report else ""
    counts = {}
    for kind, pattern in KINDS.items():
        match = re.search(r"^\s*" + pattern, summary, re.MULTILINE)
        # Older reports do not count failures that were expected.
        if not match and kind != "expected":
            return None
        counts[kind] = int(match.group(1)) if match else 0
    # Named in a list of their own, if there are any.
    broken = re.search(r"^Failed \(bogus\) test programs:\n\s+(\S.*)$", report, re.MULTILINE)
    if broken:
        counts["failed"] += len(broken.group(1).split(","))
    return Counts(**counts)


def text(report):
    """The summary with the lists of failures before it."""
    at = [report.find(head) for head in ("Failed (bogus) test programs", "Failed test cases")]
    at.append(report.rfind("Summary for "))
    at = [position for position in at if position >= 0]
    return report[min(at):] if at else ""
