"""A page on one's own machine to play with a trained run.

table    the page's questions, answered: prompts, responses, next words, rewards
server   hands out the page and the answers, to this machine alone

page.html, page.css and page.js are the page: plain text, nothing from the network.
"""
