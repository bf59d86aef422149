/* The packed file at the start of the model's flash. */
    .section .model, "a"
    .balign 64
    .incbin "model.fmq"
