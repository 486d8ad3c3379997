"""Chat templates that show tools, or names, as well-known ones do, on the special tokens of `tests/bases.py`."""

# As Qwen2.5's: tools in the system's turn, calls as tagged JSON after the words, answers to them in a user's turn,
# those of one turn together. Without a system's turn it has one of its own.
QWEN = """
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content %}
{%- else %}
    {%- set system = 'You help.' %}
{%- endif %}
{{- '<|start|>system\n' + system }}
{%- if tools %}
    {{- '\n\nTools you may call:\n<tools>' }}
    {%- for tool in tools %}
        {{- '\n' }}{{- tool | tojson }}
    {%- endfor %}
    {{- '\n</tools>\nCall one with <tool_call></tool_call> around its name and arguments.' }}
{%- endif %}
{{- '<|end|>\n' }}
{%- for m in messages %}
    {%- set plain = m.role == 'assistant' and not m.tool_calls %}
    {%- if m.role == 'user' or (m.role == 'system' and not loop.first) or plain %}
        {{- '<|start|>' + m.role + '\n' + m.content + '<|end|>\n' }}
    {%- elif m.role == 'assistant' %}
        {{- '<|start|>assistant' }}
        {%- if m.content %}
            {{- '\n' + m.content }}
        {%- endif %}
        {%- for call in m.tool_calls %}
            {%- if call.function is defined %}
                {%- set call = call.function %}
            {%- endif %}
            {{- '\n<tool_call>\n{"name": "' + call.name + '", "arguments": ' }}
            {{- call.arguments | tojson }}
            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|end|>\n' }}
    {%- elif m.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}
            {{- '<|start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' + m.content + '\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}
            {{- '<|end|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start|>assistant\n' }}
{%- endif %}
"""
# As Mistral's: a special token of their own before the calls, which are one JSON array.
MISTRAL = (
    "{{ bos_token }}{% if tools %}[TOOLS] {{ tools | tojson }} {% endif %}{% for m in messages %}"
    "{% if m.role == 'assistant' and m.tool_calls is defined %}<unk>[{% for c in m.tool_calls %}"
    "{{ c.function | tojson }}{% if not loop.last %}, {% endif %}{% endfor %}]{{ eos_token }}"
    "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% elif m.role == 'tool' %}[RESULTS] {{ m.content }} {{ m.tool_call_id }} [/RESULTS]"
    "{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
)
# ChatML with who speaks.
NAMES = (
    "{% for m in messages %}<|start|>{{ m.role }}{% if m.name %} name={{ m.name }}{% endif %}"
    "{{ '\n' + m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
