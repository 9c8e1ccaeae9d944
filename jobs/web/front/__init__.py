"""What stands before and below the service's routes: the server and TLS, proxies' words, the guard, the account of answers.

In: connections. Out: requests that may pass, with what they were asked at; metrics and lines of what became of them. No routes.
"""
