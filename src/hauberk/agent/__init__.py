"""What a service keeps fresh: SVID, bundles, policies, revocations, records."""
