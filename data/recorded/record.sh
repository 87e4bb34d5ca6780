# The tables of chapters 4 to 7 in data/recorded, from the project's folder: sh data/recorded/record.sh
#
# Needs data/ACDC and data/Task01_BrainTumour, in which the record had the eight subjects that data/README.md describes (all 484 are read from
# disk, where images cannot be scaled), and for the last part knee_complex, cardiac_complex and multicoil_head in
# $PHASE. Goes on where it was stopped. PROM is the command, JOBS the number of runs at a time, SEEDS those of Table 1, and MASKS of Table 2.
set -e
PROM=${PROM:-.venv/bin/prom} PYTHON=${PYTHON:-.venv/bin/python} JOBS=${JOBS:-2} SEEDS=${SEEDS:-10} MASKS=${MASKS:-3}
sweep() { "$PROM" sweep reconstruction --jobs "$JOBS" "$@"; }

FREE="energy conjugate_energy low_pass igs gaussian gaussian:protect_centre=true equispaced equispaced:exact_budget=false poisson_disc"
LEARNT="loupe score_prune default polished"

# the authors' procedure at its full length: on one core 7 minutes a run in the median, and up to 23 on a busy machine
ONE="--dataset acdc --output results/paper --methods paper:members=1" ALL="--ensembles paper:members=1"
sweep $ONE $ALL --accelerations 32 16 8 4 --seeds 10
sweep $ONE $ALL --patterns columns --accelerations 8 --seeds 3
sweep $ONE $ALL --set scale=0.3 --seeds 10
sweep $ONE $ALL --set scale=0.2 --accelerations 32 --seeds 6
sweep $ONE $ALL --set scale=0.2 --accelerations 16 --seeds 4
sweep $ONE $ALL --set scale=0.2 --accelerations 8 --seeds 10
sweep $ONE $ALL --set scale=0.2 --accelerations 4 --seeds 2
sweep $ONE $ALL --set scale=0.1 --accelerations 8 --seeds 10
sweep $ONE $ALL --set scale=0.03 --accelerations 32 --seeds 2
sweep $ONE $ALL --set scale=0.01 --seeds 10

# Table 1: on two cores an hour for ACDC, about two for the tumours; the paper's recipe on the virtual brains 20 minutes, on the tumours five hours
sweep --dataset acdc --output results/acdc --methods $FREE $LEARNT --patterns points columns --seeds "$SEEDS"
sweep --dataset mni_brain --output results/mni --methods $FREE $LEARNT --patterns points columns --seeds "$SEEDS"
sweep --dataset mni_brain --output results/mni --methods paper:members=1 --ensembles paper:members=1 --accelerations 32 8 --seeds 3
sweep --dataset brain_tumour --output results/tumour --methods $FREE $LEARNT --patterns points columns --seeds "$SEEDS"
sweep --dataset brain_tumour --output results/tumour --methods paper:members=1 --ensembles paper:members=1 --seeds 10
sweep --dataset brain_tumour --output results/tumour --methods paper:members=1 --ensembles paper:members=1 --set scale=0.3 --seeds 2

# chapter 7: how many iterations are enough
sweep --dataset acdc --output results/acdc --accelerations 8 --methods default:iterations=25 default:iterations=50 \
    default:iterations=100 default:iterations=200 default:iterations=1200

# chapter 6: what of the repair matters, with the paper's course of the budget and with that of the default recipe
for course in iterations=600,exploration=0.1,exploitation=0.1, ""; do
    for estimator in gumbel straight_through; do for step in adam,learning_rate=0.01 quantile,learning_rate=0.05; do
        for start in uniform energy; do for shared in true false; do
            METHODS="$METHODS default:${course}estimator=$estimator,step_rule=$step,initialisation=$start,shared_mask=$shared,curvature=false"
        done; done
    done; done
done
sweep --dataset acdc --output results/acdc --accelerations 8 32 --methods $METHODS

# Table 2: a network (half an hour on two cores), masks for the image and masks through the network (5 to 25 minutes a run, on one core)
NET=results/networks/acdc.pt TABLE=results/table2 DATA=acdc
[ -e $NET ] || { mkdir -p results/networks && "$PROM" segment train acdc --augment --steps 1800 --output $NET; }
through() { "$PROM" sweep segmentation --jobs "$JOBS" --dataset $DATA --output $TABLE --network $NET --seeds "$MASKS" "$@"; }
TASK="task-polished:polish=12,hold_out=0.2"
through --accelerations 1 --methods energy
at() { through --accelerations 8 16 32 "$@"; }
at --patterns points columns --methods energy conjugate_energy low_pass polished $TASK
at --patterns columns --methods equispaced igs task-igs:batch_size=128
at --patterns points columns --methods paper:members=1 default task-default:iterations=100
at --methods gaussian gaussian:protect_centre=true poisson_disc task-polished:polish=12 task-loupe:iterations=100 \
    task-default:iterations=100,curvature=false task-default:iterations=100,curvature=false,initialisation=energy
at --methods energy polished $TASK --tuning-steps 200
# one mask each: three quarters of an hour on one core, at full length eight hours; most of Table 2 was recorded on a GPU
at --seeds 1 --patterns points columns --methods task-paper:members=1,iterations=250
at --seeds 1 --methods task-paper:members=1,iterations=50 task-loupe:iterations=600 task-default:iterations=600
through --seeds 1 --accelerations 32 --methods task-paper:members=1

# the same through a network that was trained half as long and without variation
NET=results/networks/acdc_unvaried.pt TABLE=results/table2_unvaried
[ -e $NET ] || "$PROM" segment train acdc --output $NET
through --accelerations 1 --methods energy
at --patterns points columns --methods energy polished

# the tumours: 14 hours on one core, minutes on a GPU (where NVIDIA_TF32_OVERRIDE=0 makes it as exact as a CPU)
NET=results/networks/brain_tumour.pt TABLE=results/table2_tumour DATA=brain_tumour
[ -e $NET ] || "$PROM" segment train brain_tumour --augment --output $NET
through --accelerations 1 --methods energy
at --patterns points columns --methods energy conjugate_energy low_pass polished
at --patterns columns --methods equispaced igs
at --methods gaussian gaussian:protect_centre=true poisson_disc default $TASK
MASKS=1
at --patterns columns --methods task-igs:batch_size=128 $TASK
at --methods paper:members=1 task-paper:members=1,iterations=250
at --methods task-polished:polish=12 task-default:iterations=300 task-default:iterations=300,curvature=false \
    task-default:iterations=300,curvature=false,initialisation=energy task-loupe:iterations=300 task-paper:members=1,iterations=50
at --methods energy polished $TASK --tuning-steps 200

"$PYTHON" data/recorded/record.py acdc results/acdc results/paper --masks 'default-points-*-seed[0-3]' --masks 'paper-*' \
    --masks 'default-iterations=100-points-x8-seed0' --masks 'polished-points-x8-seed0'
"$PYTHON" data/recorded/record.py acdc results/table2 --masks 'polished-columns-*-seed0' --masks 'task-polished-polish=12-hold_out=0.2-columns-*'
"$PYTHON" data/recorded/record.py acdc_unvaried results/table2_unvaried
"$PYTHON" data/recorded/record.py mni_brain results/mni
"$PYTHON" data/recorded/record.py brain_tumour results/table2_tumour --masks 'task-polished-polish=12-hold_out=0.2-columns-*'
"$PYTHON" data/recorded/record.py brain_tumour results/tumour --masks 'default-points-*-seed0'
"$PYTHON" data/recorded/settings.py acdc --root data/ACDC --seeds 2  # an hour
"$PYTHON" data/recorded/settings.py brain_tumour --root data/Task01_BrainTumour
"$PYTHON" data/recorded/lines.py --root data/ACDC
"$PYTHON" data/recorded/open_choices.py --root data/ACDC --jobs "$JOBS"  # an hour and a half on two cores
"$PYTHON" data/recorded/open_choices.py --dataset brain_tumour --root data/Task01_BrainTumour
[ -z "$PHASE" ] || "$PYTHON" data/recorded/true_phase.py --root "$PHASE"
"$PROM" records data/recorded  # which files still have results of older code
