"""The page as a user has it: a shell writes, the page moves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from fakesys.daemon.launch import Daemon
from tests.long import LONG
from tests.mounts import Mount, mounted
from tests.view.browser import NARROW, WIDE, axe, evaluate, logged, look, served, wait_for

UUID = "10000000-0000-4000-8000-000000000001"
HOSTILE = "<img src=x onerror=document.title='taken'>"
# Elements that are not of the page.
MARKUP = "document.querySelectorAll('img, main b:not([class]), main script').length"
# Far above what it takes; the aim is half a second.
SOON = 20.0
PICTURES = os.environ.get("FAKESYS_PICTURES")
SCHEME = {WIDE: "light", NARROW: "dark"}


def text(selector: str) -> str:
    """An expression: all text of an element."""
    return f"(document.querySelector({json.dumps(selector)})?.textContent ?? '')"


def holds(selector: str, words: str) -> str:
    """An expression: the element has this text."""
    return f"{text(selector)}.includes({json.dumps(words)})"


def put(mount: Mount, path: str, words: str) -> None:
    """Write as a shell does."""
    with open(mount.root / "sys" / path, "w") as file:
        file.write(words)


def three_guests(mount: Mount) -> None:
    """Two domains for two guests, one of which runs."""
    put(mount, "bus/ap/aqmask", "-4,-0x47")
    create = "devices/vfio_ap/matrix/mdev_supported_types/vfio_ap-passthrough/create"
    put(mount, create, UUID)
    for name, words in (("assign_adapter", "5"), ("assign_domain", "4")):
        put(mount, f"devices/vfio_ap/matrix/{UUID}/{name}", words)
    put(mount, "kernel/debug/fakesys/ap/new_guest", "first")
    put(mount, "kernel/debug/fakesys/ap/guests/first/attach", UUID)


def test_writes_of_a_shell_appear(driver: webdriver.Chrome, mount: Mount) -> None:
    three_guests(mount)
    with served(mount.root) as address:
        driver.get(address)
        wait_for(driver, holds("#mdevs", "adapters 05, domains 04"))
        assert evaluate(driver, holds("#ap-sum", "3 adapters, 4 domains, 12 queues"))
        put(mount, f"devices/vfio_ap/matrix/{UUID}/assign_adapter", "6")
        wait_for(driver, holds("#mdevs", "adapters 05-06, domains 04"), SOON)
        wait_for(driver, holds("#stream-writes tbody", f"{UUID}/assign_adapter6"), SOON)
        who = f"[{os.getpid()}] uid {os.getuid()}ok"
        assert evaluate(driver, holds("#stream-writes tbody", who))
        with pytest.raises(OSError, match="Address"):
            put(mount, "bus/ap/aqmask", "+4")
        wait_for(driver, holds("#stream-writes tbody", "EADDRINUSE"), SOON)
        wait_for(driver, holds("#stream-writes tbody", "vfio_ap has given queues"), SOON)
        # Hot unplug.
        put(mount, "kernel/debug/fakesys/ap/del_card", "6")
        wait_for(driver, holds("#ap-sum", "2 adapters, 4 domains, 8 queues"), SOON)
        wait_for(driver, holds("#stream-uevents tbody", "remove"), SOON)
        assert logged(driver) == []


def test_kvm_in_words(driver: webdriver.Chrome, mount: Mount) -> None:
    with served(mount.root) as address:
        driver.get(address)
        wait_for(driver, holds("#vms", "No VM yet"))
        put(mount, "kernel/debug/fakesys/kvm/preset", "linux-boot vcpus=2 name=boots")
        wait_for(driver, holds("#vms h3", "boots"), SOON)
        wait_for(driver, holds("#vms", "vcpu1: in guest"), SOON)
        assert evaluate(driver, holds("#vms", "0xfee00000"))
        put(mount, "kernel/debug/fakesys/kvm/ctl", "vm destroy boots")
        wait_for(driver, holds("#vms", "No VM yet"), SOON)


def test_hostile_names_stay_text(driver: webdriver.Chrome, tmp_path: Path) -> None:
    """All that a user of the mount can name as he likes: also the mount and the writers."""
    folder = tmp_path / HOSTILE.replace("/", "")
    folder.mkdir()
    with mounted(folder, scenario="default") as mount, served(mount.root, "--trace") as address:
        driver.get(address)
        wait_for(driver, holds("#status", "live"))
        with pytest.raises(OSError, match="Invalid"):
            put(
                mount,
                "devices/vfio_ap/matrix/mdev_supported_types/vfio_ap-passthrough/create",
                HOSTILE,
            )
        wait_for(driver, holds("#last-error", HOSTILE), SOON)
        put(mount, "kernel/debug/fakesys/kmsg", f"{HOSTILE}\n")
        put(mount, "kernel/tracing/trace_marker", HOSTILE)
        (mount.root / "sys/kernel/tracing/instances" / HOSTILE).mkdir()
        # A thread gives itself any name of 15 bytes.
        script = "echo '<b onx=1>' > /proc/self/comm; echo 0 > \"$0\"/sys/bus/ap/poll_thread"
        subprocess.run(["/bin/bash", "-c", script, mount.root], timeout=SOON, check=True)
        for name, words in (
            ("writes", HOSTILE),
            ("writes", f"instances/{HOSTILE}"),
            ("writes", "<b onx=1>["),
            ("log", HOSTILE),
            ("trace", HOSTILE),
        ):
            wait_for(driver, holds(f"#stream-{name} tbody", words), SOON)
        assert evaluate(driver, holds("#point", folder.name))
        assert evaluate(driver, MARKUP) == 0
        assert driver.title.startswith("fakesys ")


def test_a_whole_machine_of_queues(driver: webdriver.Chrome, tmp_path: Path) -> None:
    with mounted(tmp_path, scenario="full") as mount, served(mount.root) as address:
        driver.get(address)
        wait_for(driver, holds("#ap-sum", "256 adapters, 256 domains, 65536 queues"))
        put(mount, "bus/ap/apmask", "-0x10")
        fits = "(b => b.scrollWidth <= b.clientWidth)(document.getElementById('scroller'))"
        look(driver, NARROW)
        wait_for(driver, fits)
        look(driver, WIDE)
        wait_for(driver, fits)
        evaluate(driver, "document.getElementById('table-details').open = true")
        wait_for(driver, "document.querySelectorAll('#ap-table tbody tr').length === 256")
        row = "document.querySelector('#ap-table tbody').rows[16].textContent"
        wait_for(driver, f"{row}.includes('given awayvfio_ap, free: 00-ff')", SOON)
        driver.find_element(By.ID, "scroller").send_keys("\ue014\ue015")  # right, down
        wait_for(driver, holds("#about", "01.0001: driver of the host"), SOON)
        wait_for(driver, holds("#about", "sys/devices/ap/card01/01.0001: driver cex4queue"), SOON)
        # Enlarged, what the keys reach is in sight.
        for _ in range(3):
            driver.find_element(By.ID, "larger").click()
        driver.find_element(By.ID, "scroller").send_keys("\ue010")  # end
        wait_for(driver, holds("#about", "01.00ff"))
        assert evaluate(
            driver, "(b => b.scrollLeft + b.clientWidth >= b.scrollWidth - 8)(scroller)"
        )


def test_two_pages(driver: webdriver.Chrome, mount: Mount) -> None:
    with served(mount.root) as address:
        pages = []
        for kind in ("tab", "window"):
            driver.switch_to.new_window(kind)
            pages.append(driver.current_window_handle)
            driver.get(address)
            wait_for(driver, holds("#ap-sum", "12 queues"))
        put(mount, "kernel/debug/fakesys/ap/del_card", "6")
        for page in pages:
            driver.switch_to.window(page)
            wait_for(driver, holds("#ap-sum", "8 queues"), SOON)
            driver.close()
        driver.switch_to.window(driver.window_handles[0])


def test_a_daemon_that_goes_and_comes_back(driver: webdriver.Chrome, tmp_path: Path) -> None:
    root = tmp_path / "mnt"
    root.mkdir()
    daemon = Daemon(root, ["--scenario", "default"], log=tmp_path / "first")
    with ExitStack() as stack:
        with daemon:
            address = stack.enter_context(served(root))
            driver.get(address)
            wait_for(driver, holds("#ap-sum", "12 queues"))
            os.kill(daemon.pid, signal.SIGSTOP)
            try:
                wait_for(driver, holds("#status", "does not answer"), SOON)
            finally:
                os.kill(daemon.pid, signal.SIGCONT)
            wait_for(driver, holds("#status", "live"), SOON)
        wait_for(driver, holds("#status", "The mount is gone"), SOON)
        with Daemon(root, ["--preset", "empty"], log=tmp_path / "second"):
            wait_for(driver, holds("#status", "live"), SOON)
            wait_for(driver, holds("#ap-sum", "0 adapters"), SOON)


@pytest.mark.parametrize("buttons", [False, True])
def test_buttons_only_with_control(driver: webdriver.Chrome, mount: Mount, buttons: bool) -> None:
    with served(mount.root, *(["--control"] if buttons else [])) as address:
        driver.get(address)
        wait_for(driver, holds("#ap-sum", "12 queues"))
        panel = driver.find_element(By.ID, "control")
        assert panel.is_displayed() == buttons
        if not buttons:
            refused = "fetch('control', {method: 'POST', body: '{}'}).then(a => a.status)"
            assert evaluate(driver, refused) == 403
            return
        panel.find_element(By.CSS_SELECTOR, "form[data-action=pull] button").click()
        wait_for(driver, holds("#ap-sum", "2 adapters"), SOON)
        wait_for(driver, holds("#result", "Pull card: ok"), SOON)
        panel.find_element(By.CSS_SELECTOR, "form[data-action=plug] button").click()
        wait_for(driver, holds("#ap-sum", "3 adapters"), SOON)


def test_streams_are_paused_and_filtered(driver: webdriver.Chrome, mount: Mount) -> None:
    with served(mount.root) as address:
        driver.get(address)
        wait_for(driver, holds("#status", "live"))
        pause = driver.find_element(By.CSS_SELECTOR, "#stream-log button")
        pause.click()
        put(mount, "kernel/debug/fakesys/kmsg", "one apple\n")
        put(mount, "kernel/debug/fakesys/kmsg", "one pear\n")
        wait_for(driver, holds("#stream-log button", "Resume (2)"), SOON)
        assert "pear" not in evaluate(driver, text("#stream-log tbody"))
        pause.click()
        wait_for(driver, holds("#stream-log tbody", "one apple"))
        driver.find_element(By.CSS_SELECTOR, "#stream-log input").send_keys("pear")
        visible = "[...document.querySelectorAll('#stream-log tbody tr')].filter(r => !r.hidden)"
        wait_for(driver, f"{visible}.length === 1 && {visible}[0].textContent.includes('pear')")


@pytest.mark.parametrize(("wish", "name"), [("reduce", "none"), ("no-preference", "fresh")])
def test_nothing_moves_for_who_wishes_so(
    driver: webdriver.Chrome, mount: Mount, wish: str, name: str
) -> None:
    feature = {"name": "prefers-reduced-motion", "value": wish}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    with served(mount.root) as address:
        driver.get(address)
        put(mount, "bus/ap/apmask", "+4")
        wait_for(driver, "document.querySelector('#stream-writes tbody tr') !== null")
        line = "document.querySelector('#stream-writes tbody tr.fresh')"
        assert evaluate(driver, f"getComputedStyle({line}).animationName") == name


def test_no_violation_of_accessibility(driver: webdriver.Chrome, mount: Mount) -> None:
    script = axe()
    three_guests(mount)
    put(mount, "kernel/debug/fakesys/kvm/preset", "linux-boot vcpus=2 name=boots")
    run = "axe.run().then(r => r.violations.map(v => [v.id, v.nodes.map(n => n.failureSummary)]))"
    with served(mount.root, "--control") as address:
        for size in (WIDE, NARROW):
            # All four were looked at; two have every size and every colour.
            schemes = ("light", "dark") if LONG or PICTURES else (SCHEME[size],)
            for scheme in schemes:
                look(driver, size, scheme)
                driver.get(address)
                wait_for(driver, holds("#vms", "boots"))
                wait_for(driver, holds("#mdevs", "first"))
                evaluate(driver, "document.getElementById('table-details').open = true")
                # Colours that just come are no colours of the page.
                evaluate(driver, "document.getAnimations().forEach(a => a.finish())")
                evaluate(driver, script + "; 0")
                assert evaluate(driver, run) == [], (size, scheme)
                width = "document.documentElement.scrollWidth - innerWidth"
                assert evaluate(driver, width) <= 0, "the page is wider than its window"
                if PICTURES:
                    evaluate(driver, "document.getElementById('table-details').open = false")
                    driver.save_screenshot(f"{PICTURES}/view-{size[0]}-{scheme}.png")


def status(address: str, **headers: str) -> int:
    """The status of an answer."""
    request = urllib.request.Request(
        address, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_others_are_refused(mount: Mount) -> None:
    with served(mount.root, "--control") as address:
        own = address.split("/")[2]
        assert status(address) == 200
        assert status(address, Origin=f"http://{own}") == 200
        assert status(address, Host="evil.example") == 403
        assert status(address, Host=f"evil.example:{own.split(':')[1]}") == 403
        assert status(address, Origin="http://evil.example") == 403
        assert status(address, Origin="null") == 403
        assert status(address, Sec_Fetch_Site="cross-site") == 403
        assert status(f"http://{own}/") == 403
        assert status(f"http://{own}/wrong/static/page.js") == 403
        assert status(f"{address}static/../server.py") == 404
        assert status(f"{address}queue/..%2f..%2fetc") == 404
