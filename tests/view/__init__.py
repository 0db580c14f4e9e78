"""The page of `fakesys view`, in a real browser, and its parts without one."""
