"""What tests are written with: builders, servers, processes, subscribers. No test is in here."""
