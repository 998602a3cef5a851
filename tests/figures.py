"""What figures show, read back from their axes."""


def shown(figure):
    return [[axes.get_images()[0].get_array() for axes in row] for row in rows_of(figure)]


def titles(figure):
    return [axes.get_title() for axes in rows_of(figure)[0]]


def rows_of(figure):
    columns = figure.axes[0].get_subplotspec().get_gridspec().ncols
    return [figure.axes[i : i + columns] for i in range(0, len(figure.axes), columns)]
