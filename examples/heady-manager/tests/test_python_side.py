import json
import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import text_model  # noqa: E402


class TextModel(unittest.TestCase):
    def test_learns_better_than_a_guess(self):
        self.assertGreater(text_model.evaluate(text_model.load_rows(), text_model.load_keywords()), 0.6)

    def test_scores_sum_to_one_and_the_reason_is_in_the_text(self):
        answer = text_model.load().predict("My card was charged twice, please refund")
        self.assertEqual(answer["label"], "billing")
        self.assertAlmostEqual(sum(answer["scores"].values()), 1, places=2)
        self.assertIn("refund", answer["because"])

    def test_unknown_words_fall_back_to_the_prior(self):
        self.assertAlmostEqual(text_model.load().predict("zzz qqq")["confidence"], 1 / 6, places=2)


class Audit(unittest.TestCase):
    def setUp(self):
        try:
            import audit
        except ImportError:
            self.skipTest("PyYAML is not installed")
        self.audit = audit
        self.auditor = audit.load_auditor()

    def rules(self, text):
        return [f["rule"] for f in self.auditor.audit(text)["findings"]]

    def test_finds_known_shapes(self):
        self.assertEqual(self.rules("id = " + "AKIA" + "ABCDEFGHIJKLMNOP"), ["aws-access-key-id"])
        self.assertEqual(self.rules("pay with 4242 4242 4242 4242"), ["card-number"])
        self.assertEqual(self.rules("pay with 4242 4242 4242 4243"), [])

    def test_finds_random_text_without_a_name(self):
        self.assertEqual(self.rules("x " + "q8Zr41LmXp0Aw9Ty" + "VbN7cKd2EuHs6GjF"), ["high-entropy"])

    def test_prose_is_clean(self):
        self.assertTrue(self.auditor.audit("A plain sentence about tokens and passwords.\n" * 50)["ok"])

    def test_equal_secrets_have_equal_fingerprints_and_are_masked(self):
        secret = "Zt9" + "xWq4Lm2"
        first, second = self.auditor.audit(f"password = {secret}\n\nadmin_password: {secret}\n")["findings"]
        self.assertEqual((first["line"], second["line"]), (1, 3))
        self.assertEqual(first["fingerprint"], second["fingerprint"])
        self.assertNotIn(secret, json.dumps([first, second]))


class Protocol(unittest.TestCase):
    def test_survives_what_is_not_json_and_ends_with_its_stdin(self):
        lines = '{"id": 1, "payload": {"text": "thank you"}}\nnot json\n{"id": 2, "payload": []}\n'
        done = subprocess.run([sys.executable, ROOT / "process_data.py"], input=lines, capture_output=True, text=True, timeout=30, check=True)
        ready, first, second = map(json.loads, done.stdout.splitlines())
        self.assertTrue(ready["ready"])
        self.assertEqual(first["result"]["results"][0]["label"], "praise")
        self.assertEqual(second["error"]["code"], "bad_input")


if __name__ == "__main__":
    unittest.main()
