"""KVM's memory management: shadow pages and how they are zapped."""
