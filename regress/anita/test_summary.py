# SPDX-License-Identifier: BSD-2-Clause
"""Tests of what is made of a report."""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import summary

REPORT = """\
Tests root: /var/tmp/dmtests

t_control (1/2): 2 test cases
    life: [1.5s] Passed.
    version: [0.5s] Passed.
[2.1s]

t_disk (2/2): 2 test cases
    query: [0.2s] %s
    swap: [0.1s] Skipped: no swap
[0.4s]

%sSummary for 2 test programs:
    %d passed test cases.
    %d failed test cases.
    0 expected failed test cases.
    1 skipped test cases.
"""
GOOD = REPORT % ("Passed.", "", 3, 0)
BAD = REPORT % ("Failed: size", "Failed test cases:\n    t_disk:query\n\n", 2, 1)


class Summary(unittest.TestCase):
    def test_counts(self):
        self.assertEqual(summary.parse(GOOD), summary.Counts(3, 0, 0, 1))
        self.assertEqual(summary.parse(BAD), summary.Counts(2, 1, 0, 1))

    def test_text_begins_with_the_failures(self):
        self.assertTrue(summary.text(BAD).startswith("Failed test cases:\n    t_disk:query"))
        self.assertTrue(summary.text(GOOD).startswith("Summary for 2"))

    def test_a_report_that_breaks_off_has_no_summary(self):
        whole = GOOD.index("Summary for")
        end = GOOD.index(" skipped test cases")
        for length in (0, 50, whole, whole + 30, end):
            self.assertIsNone(summary.parse(GOOD[:length]), length)

    def test_programs_that_fell_are_failures(self):
        fell = GOOD.replace(
            "Summary for", "Failed (bogus) test programs:\n    t_live, t_lvm\n\nSummary for"
        )
        self.assertEqual(summary.parse(fell).failed, 2)

    def test_a_test_cannot_forge_the_summary(self):
        forged = BAD.replace("life: [1.5s] Passed.", "life: Summary for 9 test programs:")
        self.assertEqual(summary.parse(forged).failed, 1)


if __name__ == "__main__":
    unittest.main()
