"""Replays recordings of a real KVM: `python -m tests.replay_kvm DIR`."""
