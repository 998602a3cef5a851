"""Known vulnerabilities of the installed packages, by pip-audit; for `make audit`: audit.py PYTHON PIP_AUDIT.

Exit codes: 0: none; 1: some, a line for each; 2: the advisory service cannot be reached.
"""

import json
import subprocess
import sys


def main() -> int:
    python, pip_audit = sys.argv[1:]
    site_packages = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], check=True,
                           capture_output=True, text=True).stdout.strip()  # fmt: skip
    command = [pip_audit, "--progress-spinner=off", "--skip-editable", "--format=json", "--path", site_packages]
    found = subprocess.run(command, capture_output=True, text=True)
    packages = json.loads(found.stdout)["dependencies"] if found.stdout.startswith("{") else []
    audited = [package for package in packages if "vulns" in package]
    if not audited:
        reason = packages[0]["skip_reason"] if packages else (found.stderr.strip().splitlines() or ["no answer"])[-1]
        print(f"error: nothing was audited, pip-audit's advisory service cannot be reached: {reason}", file=sys.stderr)
        return 2
    for package in audited:
        for vulnerability in package["vulns"]:
            fixed = ", ".join(vulnerability["fix_versions"]) or "no version yet"
            print(f"{package['name']} {package['version']}: {vulnerability['id']}, fixed in {fixed}")
    for package in packages:
        if "skip_reason" in package:
            print(f"{package['name']}: not audited: {package['skip_reason']}")
    faulty = sum(bool(package["vulns"]) for package in audited)
    print(f"{len(audited)} of {len(packages)} packages audited, {faulty} with known vulnerabilities")
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main())
