"""The adjunct processor bus: installed crypto cards, masks, scans, cards, queues, drivers."""
