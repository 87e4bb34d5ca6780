# One record = one papermill run. `prom sweep` writes the runs into sweep.json, starts this there and judges the records: prom/sweep.py.
import json


configfile: "sweep.json"


rule all:
    input:
        [f"{run}.json" for run in config["runs"]],


rule run:
    input:  # an average of solutions needs their masks, each written before its record
        lambda wildcards: [mask.replace(".h5", ".json") for mask in config["runs"][wildcards.run].get("average", [])],
    output:
        "{run}.json",
    log:  # outputs of a failed run are removed, its logs stay
        notebook="{run}.ipynb",
        text="{run}.log",
    threads: 1  # several runs share the machine; sets OMP_NUM_THREADS
    resources:
        mem_mb=4000,
    params:
        values=lambda wildcards: json.dumps(config["runs"][wildcards.run]),
    shell:
        "{config[python]:q} {config[runner]:q} {config[notebook]:q} {log.notebook:q} -y {params.values:q} > {log.text:q} 2>&1"
