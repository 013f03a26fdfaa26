"""The demo: two services, mutual TLS, least privilege, a catalogue of attacks and the record that proves each."""
