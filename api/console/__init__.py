"""The console: pages for a browser over what the API answers, on the API's own port."""
